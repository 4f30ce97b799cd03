# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What may be asked beside the host: the options of each kind of request.

An options object travels as a whole, through the service, over the bus and
through a forward, so that no layer can leave one of its options out. No
field has a default: who makes one says every option, and mypy sees the one
that is missing. The constants ask for nothing special.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing

from xenpool_driver import exceptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddHost:
    """The options of a request that adds hosts.

    :ivar force: join with ``pool.join_force``.
    :ivar suspend_ha: switch HA off around the join.
    :ivar restore_settings: put back the safe settings that a join loses.
    """

    force: bool
    suspend_ha: bool
    restore_settings: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoveHost:
    """The options of a request that removes a host.

    :ivar successor: compute host name of the next master, or None.
    :ivar allow_data_loss: go on although local disks hold data.
    :ivar forget: the host is dead: only forget its record.
    :ivar drain: first move its virtual machines away.
    :ivar keep_disabled: leave the host disabled when draining fails.
    :ivar wait: wait until the host is back as a pool of its own.
    :ivar suspend_ha: switch HA off around the removal.
    """

    successor: str | None
    allow_data_loss: bool
    forget: bool
    drain: bool
    keep_disabled: bool
    wait: bool
    suspend_ha: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetMaster:
    """The options of a request that changes the master.

    :ivar suspend_ha: switch HA off around the change.
    """

    suspend_ha: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckHosts:
    """The options of the request that would add the hosts to be judged.

    :ivar force: as in :class:`AddHost`.
    :ivar suspend_ha: as in :class:`AddHost`.
    """

    force: bool
    suspend_ha: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """The options of an audit.

    :ivar fix: settle what touches only our own metadata, put back a lost
        stamp, and destroy the records of control domains that stuck joins
        have left.
    """

    fix: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recover:
    """The options of a recovery.

    :ivar promote: compute host name of the member that becomes the master
        instead of a dead one, or None.
    :ivar master_is_off: a person has switched the dead one off, so that
        only members that can vote are counted.
    :ivar force: the uuid of an operation whose worker is dead, as a person
        says: it is settled before its lease has run out. Or None.
    """

    promote: str | None
    master_is_off: bool
    force: str | None


ADD_HOST = AddHost(force=False, suspend_ha=False, restore_settings=False)
REMOVE_HOST = RemoveHost(
    successor=None,
    allow_data_loss=False,
    forget=False,
    drain=False,
    keep_disabled=False,
    wait=False,
    suspend_ha=False,
)
SET_MASTER = SetMaster(suspend_ha=False)
CHECK_HOSTS = CheckHosts(force=False, suspend_ha=False)
AUDIT = Audit(fix=False)
RECOVER = Recover(promote=None, master_is_off=False, force=None)

Options = AddHost | RemoveHost | SetMaster | CheckHosts | Audit | Recover

Kind = typing.TypeVar(
    'Kind', AddHost, RemoveHost, SetMaster, CheckHosts, Audit, Recover
)


def pack(options: Options) -> dict[str, typing.Any]:
    """Return every option by its name, as plain values."""
    return dataclasses.asdict(options)


def unpack(
    plain: Kind, packed: collections.abc.Mapping[str, typing.Any]
) -> Kind:
    """Return what :func:`pack` was given, maybe by another release.

    :param plain: the constant of the kind. It stands in for an option that
        an older release does not know, and so does not ask for.
    :raises ServiceError: a newer release asks for something that is not
        known here. To leave it out would be to do something else than was
        asked.
    """
    known = {field.name for field in dataclasses.fields(plain)}
    unknown = sorted(set(packed) - known)
    if unknown:
        raise exceptions.ServiceError(
            f"nothing was done: this compute service is too old for the "
            f"option '{unknown[0]}'; upgrade the package xenpool-driver on "
            f"its machine"
        )
    return dataclasses.replace(plain, **packed)
