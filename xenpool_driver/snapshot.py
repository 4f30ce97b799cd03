# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What one pool looked like at one moment. Pure data, no I/O.

A :class:`PoolSnapshot` holds one table per XAPI class, ``{ref: record}``, in
the order in which XAPI gave them (some of its checks visit records in that
order). A class that could not be read stands in ``unreadable`` with the
reason: whoever needs it must say so instead of taking it for empty.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import typing

from xenpool_driver import objects

LIVE_CLASSES = (
    'pool',
    'host',
    'host_metrics',
    'PIF',
    'network',
    'SR',
    'PBD',
    'VM',
    'SM',
    'Certificate',
    'pool_update',
    'Cluster_host',
    'Cluster',
    'SDN_controller',
)
"""What a live precheck of a join reads, one call each. Bonds, VLANs, tunnels
and SR-IOV networks show in the PIFs. With login and clock: 16 calls; clusters
and updates are not asked for where nothing refers to them."""

EJECT_CLASSES = (
    'pool',
    'host',
    'host_metrics',
    'VM',
    'VBD',
    'VDI',
    'SR',
    'PBD',
)
"""What a precheck of an eject reads."""

MASTER_CLASSES = ('pool', 'host', 'host_metrics', 'SR', 'PBD')
"""What a precheck of a master change reads."""

AUDIT_CLASSES = (
    'pool',
    'host',
    'host_metrics',
    'SR',
    'PBD',
    'PIF',
    'Certificate',
    'pool_update',
)
"""What an audit reads."""

DUMP_CLASSES = (
    *LIVE_CLASSES,
    'VBD',
    'VDI',
    'Bond',
    'VLAN',
    'tunnel',
    'network_sriov',
)
"""What a dump for a support case holds at least."""


def _empty() -> typing.Any:
    """Return the default of a table."""
    return dataclasses.field(default_factory=dict)


_T = typing.TypeVar('_T', bound=objects.Record)
_Table = collections.abc.Mapping[objects.Ref, _T]

_SHOWN_BY_PIFS = frozenset({'Bond', 'VLAN', 'tunnel', 'network_sriov'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolSnapshot:
    """The records of one pool at one moment.

    :ivar pool: its pool record; None when it could not be read.
    :ivar unreadable: ``{class: why it could not be read}``.
    :ivar read_classes: the classes that were read, empty ones included.
    :ivar clock_offset: seconds by which the coordinator's clock is ahead of
        ours; None when it was not asked.
    :ivar aggregate: the name of the aggregate that the pool is, or ''.
    """

    pool: objects.Pool | None = None
    hosts: _Table[objects.Host] = _empty()
    metrics: _Table[objects.HostMetrics] = _empty()
    pifs: _Table[objects.Pif] = _empty()
    networks: _Table[objects.Network] = _empty()
    srs: _Table[objects.Storage] = _empty()
    pbds: _Table[objects.Pbd] = _empty()
    vdis: _Table[objects.Vdi] = _empty()
    vbds: _Table[objects.Vbd] = _empty()
    vms: _Table[objects.Vm] = _empty()
    sms: _Table[objects.SmDriver] = _empty()
    certificates: _Table[objects.Certificate] = _empty()
    updates: _Table[objects.PoolUpdate] = _empty()
    cluster_hosts: _Table[objects.ClusterHost] = _empty()
    clusters: _Table[objects.Cluster] = _empty()
    sdn_controllers: _Table[objects.SdnController] = _empty()
    bond_table: _Table[objects.Bond] = _empty()
    vlan_table: _Table[objects.Vlan] = _empty()
    tunnel_table: _Table[objects.Tunnel] = _empty()
    sriov_table: _Table[objects.NetworkSriov] = _empty()
    unreadable: objects.Strings = _empty()
    read_classes: frozenset[str] = frozenset()
    clock_offset: float | None = None
    aggregate: str = ''

    def called(
        self, names: objects.Strings, aggregate: str = ''
    ) -> PoolSnapshot:
        """Return the same with the names that our commands take.

        :param names: ``{XenServer uuid: compute host name}``.
        :param aggregate: the name of the aggregate that the pool is.
        """
        hosts = {
            ref: dataclasses.replace(host, alias=names.get(host.uuid, ''))
            for ref, host in self.hosts.items()
        }
        return dataclasses.replace(self, hosts=hosts, aggregate=aggregate)

    def lacks(self, cls: str) -> str | None:
        """Say why nothing is known of class ``cls``, or None if it is."""
        if cls in self.read_classes:
            return None
        if cls in _SHOWN_BY_PIFS and 'PIF' in self.read_classes:
            return None
        return self.unreadable.get(cls, f"class {cls} was not read")

    @functools.cached_property
    def coordinator(self) -> objects.Host | None:
        """The host that is the pool's master."""
        if self.pool is None or self.pool.master is None:
            return None
        return self.hosts.get(self.pool.master)

    @property
    def name(self) -> str:
        """What people call the pool; a nameless one by its coordinator."""
        if self.pool is not None and self.pool.name_label:
            return self.pool.name_label
        host = self.coordinator
        return host.name if host else '?'

    def host_by_uuid(self, uuid: str) -> objects.Host | None:
        """Return the host with this uuid."""
        return self._hosts_by_uuid.get(uuid)

    @functools.cached_property
    def _hosts_by_uuid(self) -> dict[str, objects.Host]:
        return {host.uuid: host for host in self.hosts.values()}

    def is_live(self, host: objects.Host) -> bool | None:
        """Say what the coordinator believes; None when nothing shows it."""
        found = self.metrics.get(host.metrics) if host.metrics else None
        return found.live if found else None

    def pifs_of(self, host: objects.Host) -> tuple[objects.Pif, ...]:
        """Return the interfaces of ``host``, in XAPI's order."""
        return self._pifs_by_host.get(host.ref, ())

    @functools.cached_property
    def _pifs_by_host(
        self,
    ) -> dict[objects.Ref | None, tuple[objects.Pif, ...]]:
        return _grouped(self.pifs.values(), lambda pif: pif.host)

    def management_pif(self, host: objects.Host) -> objects.Pif | None:
        """Return the interface that carries the management of ``host``."""
        for pif in self.pifs_of(host):
            if pif.management:
                return pif
        return None

    def bridge_of(self, pif: objects.Pif) -> str:
        """Return the bridge of the interface's network, or ''."""
        network = self.networks.get(pif.network) if pif.network else None
        return network.bridge if network else ''

    def pbds_of(self, host: objects.Host) -> tuple[objects.Pbd, ...]:
        """Return the storage connections of ``host``."""
        return self._pbds_by_host.get(host.ref, ())

    @functools.cached_property
    def _pbds_by_host(
        self,
    ) -> dict[objects.Ref | None, tuple[objects.Pbd, ...]]:
        return _grouped(self.pbds.values(), lambda pbd: pbd.host)

    def pbds_of_sr(self, sr: objects.Storage) -> tuple[objects.Pbd, ...]:
        """Return every host's connection to ``sr``."""
        return self._pbds_by_sr.get(sr.ref, ())

    @functools.cached_property
    def _pbds_by_sr(self) -> dict[objects.Ref | None, tuple[objects.Pbd, ...]]:
        return _grouped(self.pbds.values(), lambda pbd: pbd.sr)

    def vdis_of(self, sr: objects.Storage) -> tuple[objects.Vdi, ...]:
        """Return the disks on ``sr``."""
        return self._vdis_by_sr.get(sr.ref, ())

    @functools.cached_property
    def _vdis_by_sr(self) -> dict[objects.Ref | None, tuple[objects.Vdi, ...]]:
        return _grouped(self.vdis.values(), lambda vdi: vdi.sr)

    def vbds_of(self, vdi: objects.Vdi) -> tuple[objects.Vbd, ...]:
        """Return the connections of VMs to ``vdi``."""
        return self._vbds_by_vdi.get(vdi.ref, ())

    @functools.cached_property
    def _vbds_by_vdi(
        self,
    ) -> dict[objects.Ref | None, tuple[objects.Vbd, ...]]:
        return _grouped(self.vbds.values(), lambda vbd: vbd.vdi)

    def is_connected(self, sr: objects.Storage) -> bool:
        """Say whether a host of the pool is connected to storage."""
        return sr.is_tools_sr or any(
            pbd.host in self.hosts for pbd in self.pbds_of_sr(sr)
        )

    def users_of(self, sr: objects.Storage) -> tuple[objects.Vm, ...]:
        """Return the virtual machines that have disks on storage, and those
        whose memory lies there."""
        disks = {vdi.ref for vdi in self.vdis_of(sr)}
        users = {vbd.vm for vbd in self.vbds.values() if vbd.vdi in disks}
        return tuple(
            vm
            for vm in self.vms.values()
            if vm.ref in users or vm.suspend_vdi in disks
        )

    def guests_on(self, host: objects.Host) -> tuple[objects.Vm, ...]:
        """Return the virtual machines that are on a host and not halted."""
        return tuple(
            vm
            for vm in self.vms.values()
            if vm.resident_on == host.ref
            and vm.power_state != 'Halted'
            and not self.is_domain_zero(vm)
        )

    def is_domain_zero(self, vm: objects.Vm) -> bool:
        """Say what XAPI's ``helpers.ml`` ``is_domain_zero`` says.

        A control domain that is not its host's own (a driver domain) is
        none.
        """
        host = self.hosts.get(vm.resident_on) if vm.resident_on else None
        return bool(
            vm.is_control_domain and host and host.control_domain == vm.ref
        )

    @property
    def bonds(self) -> tuple[objects.Bond, ...]:
        """The bonds, from their own table or as the PIFs show them."""
        if 'Bond' in self.read_classes:
            return tuple(self.bond_table.values())
        return tuple(
            objects.Bond(
                ref=ref,
                uuid='',
                master=pif.ref,
                slaves=tuple(
                    other.ref
                    for other in self.pifs.values()
                    if other.bond_slave_of == ref
                ),
            )
            for pif in self.pifs.values()
            for ref in pif.bond_master_of
        )

    @property
    def vlans(self) -> tuple[objects.Vlan, ...]:
        """The VLANs, from their own table or as the PIFs show them."""
        if 'VLAN' in self.read_classes:
            return tuple(self.vlan_table.values())
        return tuple(
            objects.Vlan(
                ref=pif.vlan_master_of,
                uuid='',
                tag=pif.vlan,
                untagged_pif=pif.ref,
            )
            for pif in self.pifs.values()
            if pif.vlan_master_of
        )

    @property
    def tunnels(self) -> tuple[objects.Tunnel, ...]:
        """The tunnels, from their own table or as the PIFs show them."""
        if 'tunnel' in self.read_classes:
            return tuple(self.tunnel_table.values())
        return tuple(
            objects.Tunnel(ref=ref, uuid='', access_pif=pif.ref)
            for pif in self.pifs.values()
            for ref in pif.tunnel_access_pif_of
        )

    @property
    def sriovs(self) -> tuple[objects.NetworkSriov, ...]:
        """The SR-IOV networks, from their table or as the PIFs show them."""
        if 'network_sriov' in self.read_classes:
            return tuple(self.sriov_table.values())
        return tuple(
            objects.NetworkSriov(ref=ref, uuid='', logical_pif=pif.ref)
            for pif in self.pifs.values()
            for ref in pif.sriov_logical_pif_of
        )


def _grouped(
    records: collections.abc.Iterable[_T],
    key: typing.Callable[[_T], objects.Ref | None],
) -> dict[objects.Ref | None, tuple[_T, ...]]:
    groups: dict[objects.Ref | None, list[_T]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {ref: tuple(group) for ref, group in groups.items()}
