# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How objects, lists and sizes are named in findings. Pure."""

from __future__ import annotations

import collections.abc
import shlex

from xenpool_driver import model, objects, redaction

_CLASSES: collections.abc.Mapping[type[objects.Record], str] = {
    objects.Pool: 'pool',
    objects.Host: 'host',
    objects.Pif: 'PIF',
    objects.Network: 'network',
    objects.Storage: 'SR',
    objects.Pbd: 'PBD',
    objects.Vdi: 'VDI',
    objects.Vbd: 'VBD',
    objects.Vm: 'VM',
    objects.SmDriver: 'SM',
    objects.Certificate: 'Certificate',
    objects.PoolUpdate: 'pool_update',
    objects.ClusterHost: 'Cluster_host',
    objects.Cluster: 'Cluster',
    objects.SdnController: 'SDN_controller',
    objects.Bond: 'Bond',
    objects.Vlan: 'VLAN',
    objects.Tunnel: 'tunnel',
    objects.NetworkSriov: 'network_sriov',
}


def at_fault(
    *records: objects.Record | None, name: str = ''
) -> tuple[model.ObjectRef, ...]:
    """Return the records as objects at fault; None is passed over.

    :param name: what to call them, when their own record has no name.
    """
    return tuple(
        model.ObjectRef(
            _CLASSES.get(type(record), type(record).__name__),
            record.uuid,
            _name(record) or name,
        )
        for record in records
        if record is not None
    )


def _name(record: objects.Record) -> str:
    for field in ('name', 'name_label', 'address', 'tag'):
        value = getattr(record, field, '')
        if value:
            return str(value)
    return ''


def connecting(
    sr: objects.Storage, host: objects.Host, like: objects.Pbd
) -> str:
    """Return the command that connects a host to shared storage.

    :param sr: the storage.
    :param host: the host that has no connection to it.
    :param like: the connection of another host. A password in its
        configuration is left out; a reference to a secret is not.
    """
    words = [
        f"device-config:{key}={shlex.quote(value)}"
        for key, value in like.device_config.items()
        if not redaction.hides(key, value)
    ]
    return ' '.join(
        (
            f"xe pbd-create sr-uuid={sr.uuid} host-uuid={host.uuid}",
            *words,
        )
    )


def renewing(cert: objects.Certificate, host: objects.Host) -> str:
    """Return the command that gives a host a new certificate.

    ``host-refresh-server-certificate`` renews only the one that is used
    inside the pool (``refresh_server_certificate`` of ``xapi_host.ml``).

    :param cert: the old one.
    :param host: whose it is.
    """
    if cert.type == 'host_internal':
        return f"xe host-refresh-server-certificate host={host.uuid}"
    return f"xe host-reset-server-certificate host={host.uuid}"


def listed(names: collections.abc.Iterable[str], limit: int = 8) -> str:
    """Return names for a sentence: all of them, or the first and how many."""
    found = list(names)
    if len(found) <= limit:
        return ', '.join(found)
    return f"{', '.join(found[:limit])} and {len(found) - limit} more"


def in_order(commands: collections.abc.Iterable[str]) -> str:
    """Return commands to type one after the other: all of them.

    One that is left out leaves the one who typed the others refused again.
    """
    return '; '.join(dict.fromkeys(commands))


def counted(number: int, what: str) -> str:
    """Return a number of things, in words that fit it.

    :param what: one of them, such as ``disk``.
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def forgetting(
    aggregate: str,
    host: objects.Host,
    master: objects.Host | None,
    guests: collections.abc.Iterable[objects.Vm] = (),
) -> str:
    """Return the commands that destroy the record of a dead member.

    :param aggregate: the name of its aggregate; '' where it has none, and so
        no command of ours.
    :param master: the master of its pool.
    :param guests: the virtual machines that are recorded there.
    """
    if aggregate and host.alias:
        words = ('aggregate', 'remove', 'host', aggregate, host.alias)
        forget = shlex.join(('xenpool', *words, '--forget', '--yes'))
    else:
        where = f"on {master.typed}: " if master else ''
        forget = f"{where}xe host-forget uuid={host.uuid}"
    return after_guests(host, guests, forget)


def after_guests(
    host: objects.Host,
    guests: collections.abc.Iterable[objects.Vm],
    forget: str = '',
) -> str:
    """Return the commands that destroy the record of a dead member.

    XAPI refuses it while virtual machines are recorded there
    (``HOST_HAS_RESIDENT_VMS``).

    :param guests: these virtual machines.
    :param forget: the command itself.
    """
    names = [vm.name for vm in guests]
    if not names:
        return forget
    which = listed(names)
    runs = 'run' if len(names) > 1 else 'runs'
    first = (
        f"make sure that {which} {runs} nowhere, then: "
        f"xe host-declare-dead uuid={host.uuid}"
    )
    return f"{first}; {forget}" if forget else first


def sized(count: int) -> str:
    """Return a size in bytes as people write it."""
    size = float(max(count, 0))
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if size < 1024:
            return (
                f"{size:.0f} {unit}" if unit == 'B' else f"{size:.1f} {unit}"
            )
        size /= 1024
    return f"{size:.1f} TiB"
