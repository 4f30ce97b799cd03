#!/usr/bin/env python3
# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Turn a dump of XAPI's data model into the simulator's data file.

Usage: make_datamodel.py DUMP.json OUTPUT.json.gz

The dump lists XAPI's classes with their fields and messages. The output
holds the same without prose, each list of roles once, plus the tables of a
few classes that the dump lacks (``EXTRA``), so that the records of any real
pool can be served. The output is reproducible: the same dump gives the same
bytes.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import sys
import typing

READ_ROLES = [
    'pool-admin',
    'pool-operator',
    'vm-power-admin',
    'vm-admin',
    'vm-operator',
    'client-cert',
    'read-only',
]
WRITE_ROLES = ['pool-admin', 'pool-operator']

# The order in which XAPI lists its classes (datamodel.ml, all_system).
ORDER = """
session subject role task event pool pool_patch pool_update VM VM_metrics
VM_guest_metrics VMSS VM_appliance DR_task host host_crashdump host_patch
host_metrics host_cpu network VIF PIF PIF_metrics Bond VLAN SM SR VDI VBD PBD
crashdump VTPM console user blob message secret tunnel network_sriov PCI PGPU
GPU_group VGPU VGPU_type PVS_site PVS_server PVS_proxy PVS_cache_storage
Feature SDN_controller PUSB USB_group VUSB Cluster Cluster_host Certificate
Repository Observer VM_group Host_driver Driver_variant Caller Rate_limit
"""
RANK = {name: rank for rank, name in enumerate(ORDER.split())}

# Classes whose messages were all removed: every message of theirs that was
# ever published answers MESSAGE_REMOVED.
REMOVED_CLASSES = ('VMPP', 'VIF_metrics', 'VBD_metrics')

# class: fields, in the order of XAPI's records. A leading '+' marks a field
# that clients may set.
EXTRA: dict[str, str] = {
    'PCI': 'uuid:string, class_id:string, class_name:string, '
    'vendor_id:string, vendor_name:string, device_id:string, '
    'device_name:string, host:host ref, pci_id:string, '
    'dependencies:PCI ref set, +other_config:(string -> string) map, '
    'subsystem_vendor_id:string, subsystem_vendor_name:string, '
    'subsystem_device_id:string, subsystem_device_name:string, '
    'driver_name:string',
    'PGPU': 'uuid:string, PCI:PCI ref, GPU_group:GPU_group ref, '
    'host:host ref, +other_config:(string -> string) map, '
    'supported_VGPU_types:VGPU_type ref set, '
    'enabled_VGPU_types:VGPU_type ref set, resident_VGPUs:VGPU ref set, '
    'supported_VGPU_max_capacities:(VGPU_type ref -> int) map, '
    'dom0_access:string, is_system_display_device:bool, '
    'compatibility_metadata:(string -> string) map',
    'GPU_group': 'uuid:string, +name_label:string, '
    '+name_description:string, PGPUs:PGPU ref set, VGPUs:VGPU ref set, '
    'GPU_types:string set, +other_config:(string -> string) map, '
    '+allocation_algorithm:string, supported_VGPU_types:VGPU_type ref set, '
    'enabled_VGPU_types:VGPU_type ref set',
    'VGPU': 'uuid:string, VM:VM ref, GPU_group:GPU_group ref, '
    'device:string, currently_attached:bool, '
    '+other_config:(string -> string) map, type:VGPU_type ref, '
    'resident_on:PGPU ref, scheduled_to_be_resident_on:PGPU ref, '
    'compatibility_metadata:(string -> string) map, +extra_args:string, '
    'PCI:PCI ref',
    'VGPU_type': 'uuid:string, vendor_name:string, model_name:string, '
    'framebuffer_size:int, max_heads:int, max_resolution_x:int, '
    'max_resolution_y:int, supported_on_PGPUs:PGPU ref set, '
    'enabled_on_PGPUs:PGPU ref set, VGPUs:VGPU ref set, '
    'supported_on_GPU_groups:GPU_group ref set, '
    'enabled_on_GPU_groups:GPU_group ref set, implementation:string, '
    'identifier:string, experimental:bool, '
    'compatible_types_in_vm:VGPU_type ref set',
    'VM_appliance': 'uuid:string, +name_label:string, '
    '+name_description:string, allowed_operations:string set, '
    'current_operations:(string -> string) map, VMs:VM ref set',
    'VM_group': 'uuid:string, +name_label:string, '
    '+name_description:string, placement:string, VMs:VM ref set',
    'VMSS': 'uuid:string, +name_label:string, +name_description:string, '
    '+enabled:bool, type:string, retained_snapshots:int, '
    'frequency:string, schedule:(string -> string) map, '
    'last_run_time:datetime, VMs:VM ref set',
    'VTPM': 'uuid:string, allowed_operations:string set, '
    'current_operations:(string -> string) map, VM:VM ref, backend:VM ref, '
    'persistence_backend:string, is_unique:bool, is_protected:bool',
    'VUSB': 'uuid:string, allowed_operations:string set, '
    'current_operations:(string -> string) map, VM:VM ref, '
    'USB_group:USB_group ref, +other_config:(string -> string) map, '
    'currently_attached:bool',
    'PUSB': 'uuid:string, USB_group:USB_group ref, host:host ref, '
    'path:string, vendor_id:string, vendor_desc:string, '
    'product_id:string, product_desc:string, serial:string, '
    'version:string, description:string, passthrough_enabled:bool, '
    '+other_config:(string -> string) map, speed:float',
    'USB_group': 'uuid:string, +name_label:string, '
    '+name_description:string, PUSBs:PUSB ref set, VUSBs:VUSB ref set, '
    '+other_config:(string -> string) map',
    'SDN_controller': 'uuid:string, protocol:string, address:string, port:int',
    'DR_task': 'uuid:string, introduced_SRs:SR ref set',
    'Driver_variant': 'uuid:string, name:string, '
    'driver:Host_driver ref, version:string, hardware_present:bool, '
    'priority:float, status:string',
    'Host_driver': 'uuid:string, host:host ref, name:string, '
    'friendly_name:string, variants:Driver_variant ref set, '
    'active_variant:Driver_variant ref, '
    'selected_variant:Driver_variant ref, type:string, '
    'description:string, info:string',
    'Observer': 'uuid:string, +name_label:string, '
    '+name_description:string, hosts:host ref set, '
    'attributes:(string -> string) map, endpoints:string set, '
    'components:string set, enabled:bool',
    'PVS_site': 'uuid:string, +name_label:string, '
    '+name_description:string, PVS_uuid:string, '
    'cache_storage:PVS_cache_storage ref set, '
    'servers:PVS_server ref set, proxies:PVS_proxy ref set',
    'PVS_server': 'uuid:string, addresses:string set, first_port:int, '
    'last_port:int, site:PVS_site ref',
    'PVS_proxy': 'uuid:string, site:PVS_site ref, VIF:VIF ref, '
    'currently_attached:bool, status:string',
    'PVS_cache_storage': 'uuid:string, host:host ref, SR:SR ref, '
    'site:PVS_site ref, size:int, VDI:VDI ref',
    'crashdump': 'uuid:string, VM:VM ref, VDI:VDI ref, '
    '+other_config:(string -> string) map',
    'host_crashdump': 'uuid:string, host:host ref, timestamp:datetime, '
    'size:int, +other_config:(string -> string) map',
    'host_patch': 'uuid:string, name_label:string, '
    'name_description:string, version:string, host:host ref, '
    'applied:bool, timestamp_applied:datetime, size:int, '
    'pool_patch:pool_patch ref, +other_config:(string -> string) map',
    'pool_patch': 'uuid:string, name_label:string, '
    'name_description:string, version:string, size:int, '
    'pool_applied:bool, host_patches:host_patch ref set, '
    'after_apply_guidance:string set, pool_update:pool_update ref, '
    '+other_config:(string -> string) map',
}

# Relations of the classes above that the dump does not have.
EXTRA_RELATIONS = [
    ['PGPU', 'GPU_group', 'GPU_group', 'PGPUs'],
    ['VGPU', 'GPU_group', 'GPU_group', 'VGPUs'],
    ['VGPU', 'type', 'VGPU_type', 'VGPUs'],
    ['VGPU', 'resident_on', 'PGPU', 'resident_VGPUs'],
    ['PGPU', 'supported_VGPU_types', 'VGPU_type', 'supported_on_PGPUs'],
    ['PGPU', 'enabled_VGPU_types', 'VGPU_type', 'enabled_on_PGPUs'],
    ['PUSB', 'USB_group', 'USB_group', 'PUSBs'],
    ['VUSB', 'USB_group', 'USB_group', 'VUSBs'],
    ['PVS_server', 'site', 'PVS_site', 'servers'],
    ['PVS_proxy', 'site', 'PVS_site', 'proxies'],
    ['PVS_cache_storage', 'site', 'PVS_site', 'cache_storage'],
    ['host_patch', 'pool_patch', 'pool_patch', 'host_patches'],
    ['Driver_variant', 'driver', 'Host_driver', 'variants'],
]


class Converter:
    """Builds the compact form; each list of roles is kept once."""

    def __init__(self, dump: dict[str, typing.Any]) -> None:
        self._dump = dump
        self._roles: list[typing.Any] = []

    def convert(self) -> dict[str, typing.Any]:
        """Return the whole of the output."""
        meta = self._dump['_meta']
        classes = {
            name: self._class(cls)
            for name, cls in self._dump['classes'].items()
        }
        for name, text in EXTRA.items():
            classes[name] = self._extra(name, text)
        return {
            'api_version': meta['api_version'],
            'emergency_calls': meta['emergency_calls'],
            'event_classes': meta['event_classes'],
            'pool_blocking_operations': meta['pool_blocking_operations'],
            'pool_waiting_operations': meta['pool_waiting_operations'],
            'removed_classes': list(REMOVED_CLASSES),
            'classes': {
                name: classes[name]
                for name in sorted(classes, key=RANK.__getitem__)
            },
            'errors': {
                code: error['params']
                for code, error in self._dump['errors'].items()
            },
            'relations': self._dump['relations'] + EXTRA_RELATIONS,
            'roles': self._roles,
        }

    def _role_index(self, roles: typing.Any) -> int:
        if roles not in self._roles:
            self._roles.append(roles)
        return self._roles.index(roles)

    def _class(self, cls: dict[str, typing.Any]) -> dict[str, typing.Any]:
        getters = [
            message['name'][len('get_') :]
            for message in cls['field_messages']
            if message['origin'] == 'field-getter'
        ]
        fields = {field['name']: field for field in cls['fields']}
        order = getters or list(fields)
        return {
            'in_database': cls['in_database'],
            'persisted': cls['persisted'],
            'events': cls['emits_events'],
            'enums': cls['enums'],
            'fields': [self._field(fields[name]) for name in order],
            'messages': self._messages(cls),
        }

    def _messages(self, cls: dict[str, typing.Any]) -> list[typing.Any]:
        """Return all messages in the order of system.listMethods."""
        first = ('get_record', 'get_by_uuid', 'get_by_name_label')
        last = ('get_all', 'get_all_records_where', 'get_all_records')
        head, middle, tail = [], [], []
        for message in cls['messages']:
            if message['origin'] in first:
                head.append(self._message(message))
            elif message['origin'] in last:
                tail.append(self._message(message))
            else:
                middle.append(self._message(message))
        derived = [self._field_message(m) for m in cls['field_messages']]
        return head + derived + middle + tail

    def _field(self, field: dict[str, typing.Any]) -> dict[str, typing.Any]:
        out = {
            'name': field['name'],
            'type': field['type'],
            'qualifier': field['qualifier'],
        }
        if 'default' in field:
            out['default'] = field['default']
        if not field.get('persisted', True):
            out['volatile'] = True
        return out

    def _message(
        self, message: dict[str, typing.Any]
    ) -> dict[str, typing.Any]:
        out = {
            'name': message['name'],
            'origin': message['origin'],
            'params': [
                {k: p[k] for k in ('name', 'type', 'default') if k in p}
                for p in message['params']
            ],
            'result': message['result'],
            'roles': self._role_index(message['roles']),
        }
        for flag in ('async', 'pool_internal', 'hidden_from_docs'):
            if message.get(flag):
                out[flag.partition('_from')[0]] = True
        if not message['session']:
            out['session'] = False
        if message['lifecycle']['state'] != 'published':
            out['state'] = message['lifecycle']['state']
        return out

    def _field_message(
        self, message: dict[str, typing.Any]
    ) -> dict[str, typing.Any]:
        return {
            'name': message['name'],
            'origin': message['origin'],
            'params': [
                {'name': name, 'type': kind}
                for name, kind in message['params']
            ],
            'result': message['result'],
            'roles': self._role_index(message['roles']),
        }

    def _extra(self, name: str, text: str) -> dict[str, typing.Any]:
        """Return a class of ``EXTRA`` with the messages of any table."""
        fields, messages = (
            [],
            [
                self._plain(
                    'get_record',
                    'get_record',
                    [('self', f'{name} ref')],
                    f'{name} record',
                ),
                self._plain(
                    'get_by_uuid',
                    'get_by_uuid',
                    [('uuid', 'string')],
                    f'{name} ref',
                ),
            ],
        )
        for item in text.split(', '):
            label, _, kind = item.partition(':')
            field = label.lstrip('+')
            qualifier = 'RW' if label.startswith('+') else 'DynamicRO'
            fields.append(
                {'name': field, 'type': kind, 'qualifier': qualifier}
            )
            messages += self._accessors(name, field, kind, qualifier)
            if field == 'name_label':
                messages.append(
                    self._plain(
                        'get_by_name_label',
                        'get_by_name_label',
                        [('label', 'string')],
                        f'{name} ref set',
                    )
                )
        record_map = f'({name} ref -> {name} record) map'
        messages += [
            self._plain('get_all', 'get_all', [], f'{name} ref set'),
            self._plain(
                'get_all_records_where',
                'get_all_records_where',
                [('expr', 'string')],
                record_map,
            ),
            self._plain('get_all_records', 'get_all_records', [], record_map),
        ]
        return {
            'in_database': True,
            'persisted': True,
            'events': True,
            'enums': {},
            'fields': fields,
            'messages': messages,
        }

    def _accessors(
        self, name: str, field: str, kind: str, qualifier: str
    ) -> list[dict[str, typing.Any]]:
        this = ('self', f'{name} ref')
        out = [self._plain(f'get_{field}', 'field-getter', [this], kind)]
        if qualifier != 'RW':
            return out
        out.append(
            self._plain(
                f'set_{field}',
                'field-setter',
                [this, ('value', kind)],
                'void',
                WRITE_ROLES,
            )
        )
        if kind.endswith(' map'):
            key = ('key', 'string')
            out.append(
                self._plain(
                    f'add_to_{field}',
                    'field-add',
                    [this, key, ('value', 'string')],
                    'void',
                    WRITE_ROLES,
                )
            )
            out.append(
                self._plain(
                    f'remove_from_{field}',
                    'field-remove',
                    [this, key],
                    'void',
                    WRITE_ROLES,
                )
            )
        return out

    def _plain(
        self,
        name: str,
        origin: str,
        params: list[tuple[str, str]],
        result: str,
        roles: typing.Any = READ_ROLES,
    ) -> dict[str, typing.Any]:
        return {
            'name': name,
            'origin': origin,
            'params': [{'name': n, 'type': t} for n, t in params],
            'result': result,
            'roles': self._role_index(roles),
        }


def main(arguments: list[str]) -> int:
    """Convert the file that the command line names."""
    if len(arguments) != 2:
        print(__doc__.split('\n\n')[1], file=sys.stderr)
        return 2
    source, target = map(pathlib.Path, arguments)
    dump = json.loads(source.read_text(encoding='utf-8'))
    text = json.dumps(Converter(dump).convert(), separators=(',', ':'))
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f'{target}: {target.stat().st_size} bytes')
    return 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
