# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI's objects as frozen records. Pure data, no I/O.

Only the fields that somebody here looks at. A field that the server does not
know has XAPI's own default.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import typing

Ref = str
"""An opaque reference. Null references are None, never text."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
"""An IP address."""

Strings = collections.abc.Mapping[str, str]
"""A map of texts to texts, such as other_config."""


def _empty() -> typing.Any:
    """Return the default of a map."""
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has.

    :ivar ref: its opaque reference.
    :ivar uuid: its uuid.
    """

    ref: Ref
    uuid: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(Record):
    """A pool. ``fields`` names what its XAPI knows of, which tells its age."""

    master: Ref | None = None
    name_label: str = ''
    name_description: str = ''
    other_config: Strings = _empty()
    tags: tuple[str, ...] = ()
    cpu_info: Strings = _empty()
    restrictions: Strings = _empty()
    current_operations: Strings = _empty()
    default_sr: Ref | None = None
    suspend_image_sr: Ref | None = None
    crash_dump_sr: Ref | None = None
    ha_enabled: bool = False
    ha_statefiles: tuple[str, ...] = ()
    ha_configuration: Strings = _empty()
    ha_host_failures_to_tolerate: int = 0
    ha_plan_exists_for: int = 0
    ha_overcommitted: bool = False
    tls_verification_enabled: bool = False
    is_psr_pending: bool = False
    fields: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host(Record):
    """A host. ``fields`` names what its XAPI knows of.

    :ivar alias: its compute host name, where that is known; it is no field
        of XAPI's.
    """

    alias: str = ''
    name_label: str = ''
    name_description: str = ''
    hostname: str = ''
    address: str = ''
    enabled: bool = False
    metrics: Ref | None = None
    control_domain: Ref | None = None
    api_version: tuple[int, int] = (0, 0)
    software_version: Strings = _empty()
    cpu_info: Strings = _empty()
    edition: str = ''
    editions: tuple[str, ...] = ()
    license_params: Strings = _empty()
    external_auth_type: str = ''
    external_auth_service_name: str = ''
    pending_guidances: tuple[str, ...] = ()
    updates: tuple[Ref, ...] = ()
    current_operations: Strings = _empty()
    other_config: Strings = _empty()
    tags: tuple[str, ...] = ()
    logging: Strings = _empty()
    display: str = 'enabled'
    tls_verification_enabled: bool = False
    latest_synced_updates_applied: str = 'unknown'
    last_update_hash: str = ''
    multipathing: bool = False
    iscsi_iqn: str = ''
    suspend_image_sr: Ref | None = None
    crash_dump_sr: Ref | None = None
    fields: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What people call it: by both names where XAPI has another one."""
        own = self.name_label or self.hostname or self.uuid
        if self.alias in ('', own):
            return own
        return f"{self.alias} ({own} in XAPI)"

    @property
    def is_multipathed(self) -> bool:
        """Whether it reaches block storage by all paths.

        Before the field (Kolkata) there was a key of other_config alone;
        XAPI keeps both in step (``xapi_host.ml``, ``set_multipathing``).
        """
        if 'multipathing' in self.fields:
            return self.multipathing
        return self.other_config.get('multipathing') == 'true'

    @property
    def initiator(self) -> str:
        """Its iSCSI name (IQN), in small letters (RFC 3720); '' for none."""
        found = self.iscsi_iqn or self.other_config.get('iscsi_iqn', '')
        return found.lower()

    @property
    def typed(self) -> str:
        """What our commands call it."""
        return self.alias or self.name_label or self.hostname or self.uuid


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostMetrics(Record):
    """What the coordinator last heard of a host.

    :ivar last_updated: seconds since 1970, or None.
    """

    live: bool = False
    last_updated: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pif(Record):
    """A network interface of one host. ``vlan`` is -1 when untagged.

    ``capabilities`` is None where its XAPI does not tell them.
    """

    host: Ref | None = None
    network: Ref | None = None
    device: str = ''
    mac: str = ''
    mtu: int = 1500
    vlan: int = -1
    ip: str = ''
    ipv6: tuple[str, ...] = ()
    netmask: str = ''
    gateway: str = ''
    dns: str = ''
    ip_configuration_mode: str = 'None'
    ipv6_configuration_mode: str = 'None'
    ipv6_gateway: str = ''
    primary_address_type: str = 'IPv4'
    management: bool = False
    physical: bool = False
    managed: bool = True
    currently_attached: bool = False
    other_config: Strings = _empty()
    bond_master_of: tuple[Ref, ...] = ()
    bond_slave_of: Ref | None = None
    vlan_master_of: Ref | None = None
    tunnel_access_pif_of: tuple[Ref, ...] = ()
    sriov_logical_pif_of: tuple[Ref, ...] = ()
    capabilities: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The device, with its VLAN tag where it has one."""
        return self.device if self.vlan < 0 else f"{self.device}.{self.vlan}"

    def is_beside(self, address: Address) -> bool:
        """Say whether ``address`` lies in a subnet of the interface."""
        texts = [f"{self.ip}/{self.netmask}"] if self.ip else []
        for text in (*texts, *self.ipv6):
            try:
                subnet = ipaddress.ip_interface(text).network
            except ValueError:
                continue
            if address.version == subnet.version and address in subnet:
                return True
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Record):
    """A network of a pool."""

    name_label: str = ''
    name_description: str = ''
    bridge: str = ''
    mtu: int = 1500
    purpose: tuple[str, ...] = ()
    other_config: Strings = _empty()
    tags: tuple[str, ...] = ()
    pifs: tuple[Ref, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Storage(Record):
    """An SR. Sizes in bytes; -1 when XAPI does not know."""

    name_label: str = ''
    name_description: str = ''
    type: str = ''
    content_type: str = ''
    shared: bool = False
    is_tools_sr: bool = False
    physical_size: int = -1
    physical_utilisation: int = -1
    other_config: Strings = _empty()
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.name_label or self.uuid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pbd(Record):
    """The connection of one host to one SR."""

    host: Ref | None = None
    sr: Ref | None = None
    device_config: Strings = _empty()
    currently_attached: bool = False
    other_config: Strings = _empty()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vdi(Record):
    """A disk. Sizes in bytes."""

    name_label: str = ''
    sr: Ref | None = None
    type: str = 'user'
    virtual_size: int = 0
    physical_utilisation: int = 0
    is_a_snapshot: bool = False
    managed: bool = True
    missing: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return self.name_label or self.uuid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vbd(Record):
    """The connection of one VM to one disk."""

    vm: Ref | None = None
    vdi: Ref | None = None
    type: str = 'Disk'
    currently_attached: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vm(Record):
    """A VM, template, snapshot or control domain. Sizes in bytes."""

    name_label: str = ''
    name_description: str = ''
    power_state: str = 'Halted'
    resident_on: Ref | None = None
    affinity: Ref | None = None
    is_control_domain: bool = False
    is_a_template: bool = False
    is_a_snapshot: bool = False
    is_default_template: bool = False
    current_operations: Strings = _empty()
    other_config: Strings = _empty()
    tags: tuple[str, ...] = ()
    attached_pcis: tuple[Ref, ...] = ()
    suspend_vdi: Ref | None = None
    memory_dynamic_min: int = 0

    @property
    def name(self) -> str:
        """What people call it."""
        return self.name_label or self.uuid

    @property
    def is_guest(self) -> bool:
        """Whether it is a VM in the everyday sense."""
        return not (
            self.is_control_domain or self.is_a_template or self.is_a_snapshot
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmDriver(Record):
    """A storage driver; ``features`` maps each to its version."""

    name_label: str = ''
    type: str = ''
    features: collections.abc.Mapping[str, int] = _empty()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate(Record):
    """A certificate. ``not_before``, ``not_after``: seconds since 1970."""

    name: str = ''
    type: str = ''
    host: Ref | None = None
    fingerprint: str = ''
    purpose: tuple[str, ...] = ()
    not_before: float | None = None
    not_after: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolUpdate(Record):
    """An update (the kind with ISO files, before repositories)."""

    name_label: str = ''
    version: str = ''
    enforce_homogeneity: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterHost(Record):
    """A host's part in a storage cluster."""

    cluster: Ref | None = None
    host: Ref | None = None
    pif: Ref | None = None
    enabled: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster(Record):
    """A storage cluster (corosync)."""

    cluster_stack: str = ''
    pool_auto_join: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdnController(Record):
    """Where the virtual switches take their orders."""

    protocol: str = 'ssl'
    address: str = ''
    port: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bond(Record):
    """A bond. The uuid is '' when only its PIFs were read."""

    master: Ref | None = None
    slaves: tuple[Ref, ...] = ()
    mode: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vlan(Record):
    """A VLAN. ``untagged_pif`` is the VLAN's own interface, eth0.10."""

    tag: int = -1
    tagged_pif: Ref | None = None
    untagged_pif: Ref | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tunnel(Record):
    """A tunnel."""

    access_pif: Ref | None = None
    transport_pif: Ref | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSriov(Record):
    """A network that hands out parts of a NIC."""

    logical_pif: Ref | None = None
    physical_pif: Ref | None = None
