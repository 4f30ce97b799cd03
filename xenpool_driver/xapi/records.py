# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI structs -> records of :mod:`xenpool_driver.snapshot`."""

from __future__ import annotations

import collections.abc
import types
import typing

from xenpool_driver import objects
from xenpool_driver import snapshot as snapshot_
from xenpool_driver.xapi import fields

RawRecord = collections.abc.Mapping[str, typing.Any]
RawTables = collections.abc.Mapping[
    str, collections.abc.Mapping[str, RawRecord]
]
"""``{class: {ref: record}}``, records as ``get_all_records`` returns them."""

MalformedRecords = fields.MalformedRecords
"""What is raised about records that make no sense."""

_NO_SUCH_CLASS = ('MESSAGE_METHOD_UNKNOWN', 'MESSAGE_REMOVED')


def _pool(s: fields.Struct) -> objects.Pool:
    return objects.Pool(
        ref=s.ref,
        uuid=s.uuid,
        master=s.reference('master'),
        name_label=s.text('name_label'),
        name_description=s.text('name_description'),
        other_config=s.strings('other_config'),
        tags=s.texts('tags'),
        cpu_info=s.strings('cpu_info'),
        restrictions=s.strings('restrictions'),
        current_operations=s.strings('current_operations'),
        default_sr=s.reference('default_SR'),
        suspend_image_sr=s.reference('suspend_image_SR'),
        crash_dump_sr=s.reference('crash_dump_SR'),
        ha_enabled=s.flag('ha_enabled'),
        ha_statefiles=s.texts('ha_statefiles'),
        ha_configuration=s.strings('ha_configuration'),
        ha_host_failures_to_tolerate=s.number('ha_host_failures_to_tolerate'),
        ha_plan_exists_for=s.number('ha_plan_exists_for'),
        ha_overcommitted=s.flag('ha_overcommitted'),
        tls_verification_enabled=s.flag('tls_verification_enabled'),
        is_psr_pending=s.flag('is_psr_pending'),
        fields=frozenset(s.record),
    )


def _host(s: fields.Struct) -> objects.Host:
    return objects.Host(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        name_description=s.text('name_description'),
        hostname=s.text('hostname'),
        address=s.text('address'),
        enabled=s.flag('enabled'),
        metrics=s.reference('metrics'),
        control_domain=s.reference('control_domain'),
        api_version=(
            s.number('API_version_major'),
            s.number('API_version_minor'),
        ),
        software_version=s.strings('software_version'),
        cpu_info=s.strings('cpu_info'),
        edition=s.text('edition'),
        editions=s.texts('editions'),
        license_params=s.strings('license_params'),
        external_auth_type=s.text('external_auth_type'),
        external_auth_service_name=s.text('external_auth_service_name'),
        pending_guidances=s.texts('pending_guidances'),
        updates=s.references('updates'),
        current_operations=s.strings('current_operations'),
        other_config=s.strings('other_config'),
        tags=s.texts('tags'),
        logging=s.strings('logging'),
        display=s.text('display', 'enabled'),
        tls_verification_enabled=s.flag('tls_verification_enabled'),
        latest_synced_updates_applied=s.text(
            'latest_synced_updates_applied', 'unknown'
        ),
        last_update_hash=s.text('last_update_hash'),
        multipathing=s.flag('multipathing'),
        iscsi_iqn=s.text('iscsi_iqn'),
        suspend_image_sr=s.reference('suspend_image_sr'),
        crash_dump_sr=s.reference('crash_dump_sr'),
        fields=frozenset(s.record),
    )


def _metrics(s: fields.Struct) -> objects.HostMetrics:
    return objects.HostMetrics(
        ref=s.ref,
        uuid=s.uuid,
        live=s.flag('live'),
        last_updated=s.moment('last_updated'),
    )


def _pif(s: fields.Struct) -> objects.Pif:
    return objects.Pif(
        ref=s.ref,
        uuid=s.uuid,
        host=s.reference('host'),
        network=s.reference('network'),
        device=s.text('device'),
        mac=s.text('MAC'),
        mtu=s.number('MTU', 1500),
        vlan=s.number('VLAN', -1),
        ip=s.text('IP'),
        ipv6=s.texts('IPv6'),
        netmask=s.text('netmask'),
        gateway=s.text('gateway'),
        dns=s.text('DNS'),
        ip_configuration_mode=s.text('ip_configuration_mode', 'None'),
        ipv6_configuration_mode=s.text('ipv6_configuration_mode', 'None'),
        ipv6_gateway=s.text('ipv6_gateway'),
        primary_address_type=s.text('primary_address_type', 'IPv4'),
        management=s.flag('management'),
        physical=s.flag('physical'),
        managed=s.flag('managed', True),
        currently_attached=s.flag('currently_attached'),
        other_config=s.strings('other_config'),
        bond_master_of=s.references('bond_master_of'),
        bond_slave_of=s.reference('bond_slave_of'),
        vlan_master_of=s.reference('VLAN_master_of'),
        tunnel_access_pif_of=s.references('tunnel_access_PIF_of'),
        sriov_logical_pif_of=s.references('sriov_logical_PIF_of'),
        capabilities=(
            s.texts('capabilities') if 'capabilities' in s.record else None
        ),
    )


def _network(s: fields.Struct) -> objects.Network:
    return objects.Network(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        name_description=s.text('name_description'),
        bridge=s.text('bridge'),
        mtu=s.number('MTU', 1500),
        purpose=s.texts('purpose'),
        other_config=s.strings('other_config'),
        tags=s.texts('tags'),
        pifs=s.references('PIFs'),
    )


def _storage(s: fields.Struct) -> objects.Storage:
    # Before is_tools_sr there was a mark in other_config (helpers.ml).
    marked = s.strings('other_config').get('xenserver_tools_sr') == 'true'
    return objects.Storage(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        name_description=s.text('name_description'),
        type=s.text('type'),
        content_type=s.text('content_type'),
        shared=s.flag('shared'),
        is_tools_sr=s.flag('is_tools_sr', marked),
        physical_size=s.number('physical_size', -1),
        physical_utilisation=s.number('physical_utilisation', -1),
        other_config=s.strings('other_config'),
        tags=s.texts('tags'),
    )


def _pbd(s: fields.Struct) -> objects.Pbd:
    return objects.Pbd(
        ref=s.ref,
        uuid=s.uuid,
        host=s.reference('host'),
        sr=s.reference('SR'),
        device_config=s.strings('device_config'),
        currently_attached=s.flag('currently_attached'),
        other_config=s.strings('other_config'),
    )


def _vdi(s: fields.Struct) -> objects.Vdi:
    return objects.Vdi(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        sr=s.reference('SR'),
        type=s.text('type', 'user'),
        virtual_size=s.number('virtual_size'),
        physical_utilisation=s.number('physical_utilisation'),
        is_a_snapshot=s.flag('is_a_snapshot'),
        managed=s.flag('managed', True),
        missing=s.flag('missing'),
    )


def _vbd(s: fields.Struct) -> objects.Vbd:
    return objects.Vbd(
        ref=s.ref,
        uuid=s.uuid,
        vm=s.reference('VM'),
        vdi=s.reference('VDI'),
        type=s.text('type', 'Disk'),
        currently_attached=s.flag('currently_attached'),
    )


def _vm(s: fields.Struct) -> objects.Vm:
    return objects.Vm(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        name_description=s.text('name_description'),
        power_state=s.text('power_state', 'Halted'),
        resident_on=s.reference('resident_on'),
        affinity=s.reference('affinity'),
        is_control_domain=s.flag('is_control_domain'),
        is_a_template=s.flag('is_a_template'),
        is_a_snapshot=s.flag('is_a_snapshot'),
        is_default_template=s.flag('is_default_template'),
        current_operations=s.strings('current_operations'),
        other_config=s.strings('other_config'),
        tags=s.texts('tags'),
        attached_pcis=s.references('attached_PCIs'),
        suspend_vdi=s.reference('suspend_VDI'),
        memory_dynamic_min=s.number('memory_dynamic_min'),
    )


def _sm(s: fields.Struct) -> objects.SmDriver:
    return objects.SmDriver(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        type=s.text('type'),
        features=s.numbers('features'),
    )


def _certificate(s: fields.Struct) -> objects.Certificate:
    return objects.Certificate(
        ref=s.ref,
        uuid=s.uuid,
        name=s.text('name'),
        type=s.text('type', 'host'),
        host=s.reference('host'),
        fingerprint=s.text('fingerprint_sha256') or s.text('fingerprint'),
        purpose=s.texts('purpose'),
        not_before=s.moment('not_before'),
        not_after=s.moment('not_after'),
    )


def _update(s: fields.Struct) -> objects.PoolUpdate:
    return objects.PoolUpdate(
        ref=s.ref,
        uuid=s.uuid,
        name_label=s.text('name_label'),
        version=s.text('version'),
        enforce_homogeneity=s.flag('enforce_homogeneity'),
    )


def _cluster_host(s: fields.Struct) -> objects.ClusterHost:
    return objects.ClusterHost(
        ref=s.ref,
        uuid=s.uuid,
        cluster=s.reference('cluster'),
        host=s.reference('host'),
        pif=s.reference('PIF'),
        enabled=s.flag('enabled'),
    )


def _cluster(s: fields.Struct) -> objects.Cluster:
    return objects.Cluster(
        ref=s.ref,
        uuid=s.uuid,
        cluster_stack=s.text('cluster_stack'),
        pool_auto_join=s.flag('pool_auto_join', True),
    )


def _sdn_controller(s: fields.Struct) -> objects.SdnController:
    return objects.SdnController(
        ref=s.ref,
        uuid=s.uuid,
        protocol=s.text('protocol', 'ssl'),
        address=s.text('address'),
        port=s.number('port'),
    )


def _bond(s: fields.Struct) -> objects.Bond:
    return objects.Bond(
        ref=s.ref,
        uuid=s.uuid,
        master=s.reference('master'),
        slaves=s.references('slaves'),
        mode=s.text('mode'),
    )


def _vlan(s: fields.Struct) -> objects.Vlan:
    return objects.Vlan(
        ref=s.ref,
        uuid=s.uuid,
        tag=s.number('tag', -1),
        tagged_pif=s.reference('tagged_PIF'),
        untagged_pif=s.reference('untagged_PIF'),
    )


def _tunnel(s: fields.Struct) -> objects.Tunnel:
    return objects.Tunnel(
        ref=s.ref,
        uuid=s.uuid,
        access_pif=s.reference('access_PIF'),
        transport_pif=s.reference('transport_PIF'),
    )


def _sriov(s: fields.Struct) -> objects.NetworkSriov:
    return objects.NetworkSriov(
        ref=s.ref,
        uuid=s.uuid,
        logical_pif=s.reference('logical_PIF'),
        physical_pif=s.reference('physical_PIF'),
    )


_PARSERS: collections.abc.Mapping[
    str, tuple[str, typing.Callable[[fields.Struct], objects.Record]]
] = {
    'host': ('hosts', _host),
    'host_metrics': ('metrics', _metrics),
    'PIF': ('pifs', _pif),
    'network': ('networks', _network),
    'SR': ('srs', _storage),
    'PBD': ('pbds', _pbd),
    'VDI': ('vdis', _vdi),
    'VBD': ('vbds', _vbd),
    'VM': ('vms', _vm),
    'SM': ('sms', _sm),
    'Certificate': ('certificates', _certificate),
    'pool_update': ('updates', _update),
    'Cluster_host': ('cluster_hosts', _cluster_host),
    'Cluster': ('clusters', _cluster),
    'SDN_controller': ('sdn_controllers', _sdn_controller),
    'Bond': ('bond_table', _bond),
    'VLAN': ('vlan_table', _vlan),
    'tunnel': ('tunnel_table', _tunnel),
    'network_sriov': ('sriov_table', _sriov),
}
"""class -> (table of the snapshot, how one record is parsed)"""


def pool(ref: str, record: RawRecord) -> objects.Pool:
    """Return a pool record.

    :raises MalformedRecords: a field makes no sense.
    """
    return _pool(fields.Struct('pool', ref, record))


def host(ref: str, record: RawRecord) -> objects.Host:
    """Return a host record.

    :raises MalformedRecords: a field makes no sense.
    """
    return _host(fields.Struct('host', ref, record))


def host_metrics(ref: str, record: RawRecord) -> objects.HostMetrics:
    """Return a host_metrics record.

    :raises MalformedRecords: a field makes no sense.
    """
    return _metrics(fields.Struct('host_metrics', ref, record))


def vm(ref: str, record: RawRecord) -> objects.Vm:
    """Return a VM record.

    :raises MalformedRecords: a field makes no sense.
    """
    return _vm(fields.Struct('VM', ref, record))


def snapshot(
    raw: RawTables,
    *,
    unreadable: collections.abc.Mapping[str, str] | None = None,
    clock_offset: float | None = None,
) -> snapshot_.PoolSnapshot:
    """Return the snapshot that the raw records make.

    Classes that nothing here needs are passed over. A class of which the
    server says that it has no such thing is empty, not unknown.

    :param raw: ``{class: {ref: record}}``.
    :param unreadable: ``{class: why it could not be read}``, for example
        ``RBAC_PERMISSION_DENIED ...``.
    :param clock_offset: seconds by which the server's clock is ahead.
    :raises MalformedRecords: a record or field makes no sense, or there is
        not exactly one pool.
    """
    if not isinstance(raw, collections.abc.Mapping):
        raise MalformedRecords('', '', '', 'the records are no map')
    refused = dict(unreadable or {})
    if 'pool' not in raw and 'pool' not in refused:
        raise MalformedRecords('pool', '', '', 'the class is missing')
    absent = {
        cls
        for cls, reason in refused.items()
        if reason.startswith(_NO_SUCH_CLASS)
    }
    tables = {
        attribute: _table(cls, raw[cls], parse)
        for cls, (attribute, parse) in _PARSERS.items()
        if cls in raw
    }
    return snapshot_.PoolSnapshot(
        pool=_only_pool(raw),
        unreadable=types.MappingProxyType(
            {k: v for k, v in refused.items() if k not in absent}
        ),
        read_classes=frozenset(raw) | absent,
        clock_offset=clock_offset,
        **typing.cast(dict[str, typing.Any], tables),
    )


def _table(
    cls: str,
    records: object,
    parse: typing.Callable[[fields.Struct], objects.Record],
) -> collections.abc.Mapping[str, objects.Record]:
    if not isinstance(records, collections.abc.Mapping):
        raise MalformedRecords(cls, '', '', 'is no map of references')
    return types.MappingProxyType(
        {
            ref: parse(fields.Struct(cls, ref, rec))
            for ref, rec in records.items()
        }
    )


def _only_pool(raw: RawTables) -> objects.Pool | None:
    if 'pool' not in raw:
        return None
    table = _table('pool', raw['pool'], _pool)
    if len(table) != 1:
        raise MalformedRecords(
            'pool', '', '', f"there must be one record, not {len(table)}"
        )
    (found,) = table.values()
    assert isinstance(found, objects.Pool)  # noqa: S101 - for mypy
    if 'host' in raw and found.master not in raw['host']:
        raise MalformedRecords(
            'pool', found.ref, 'master', 'there is no record of that host'
        )
    return found
