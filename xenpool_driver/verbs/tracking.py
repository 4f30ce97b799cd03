# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The members of another service's aggregate, when it is first heard of.

A host is known to be a member by its uuid in the metadata. It may be missing
there: Nova's driver wrote it after the join, in a request of its own, and so
could lose it. A pool of which only some hosts have theirs is not a pool of
fewer hosts; XAPI says who belongs to it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress

from oslo_log import log

from xenpool_driver import exceptions, identity, model, operation, pool_states

LOG = log.getLogger(__name__)

FORMED = frozenset({pool_states.ACTIVE, pool_states.ERROR})
"""The states of an aggregate that has a pool."""


@dataclasses.dataclass(frozen=True)
class Members:
    """Who belongs to an aggregate's pool.

    :ivar hosts: compute host names.
    :ivar uuids: their XenServer uuids, as far as they are known.
    """

    hosts: tuple[str, ...]
    uuids: collections.abc.Mapping[str, str]


def members(
    site: operation.Site,
    aggregate: model.AggregateLike,
    joins: str = '',
    leaves: str = '',
) -> Members:
    """Return the members of an aggregate that is not in the store yet.

    Before there is a pool, hosts without a uuid are none. Later they are
    those that XAPI lists; where it cannot be asked, or a host is configured
    by a name and not by an address, they count as members.

    :param joins: the host that the request adds: Nova's API has written it
        into the aggregate already, and it is no member yet.
    :param leaves: the host that the request removes: Nova's API has taken it
        out already, and it is a member still.
    """
    named = dict.fromkeys((*aggregate.hosts, *filter(None, [leaves])))
    named.pop(joins, None)
    uuids = pool_states.host_uuids(aggregate.metadata, named)
    missing = [host for host in named if host not in uuids]
    state = aggregate.metadata.get(pool_states.STATE)
    if not missing or state not in FORMED:
        return Members(tuple(uuids), uuids)
    found = _listed(site, aggregate, uuids, missing)
    LOG.warning(
        'Aggregate %s lacks the uuid of %s; by XAPI: %s',
        aggregate.name,
        ', '.join(missing),
        found,
    )
    hosts = [host for host in named if host in uuids or host in found]
    return Members(
        tuple(hosts),
        {**uuids, **{host: uuid for host, uuid in found.items() if uuid}},
    )


def _listed(
    site: operation.Site,
    aggregate: model.AggregateLike,
    uuids: collections.abc.Mapping[str, str],
    missing: collections.abc.Sequence[str],
) -> dict[str, str]:
    """Return those of ``missing`` that may be members, and their uuids.

    :returns: {compute host: XenServer uuid, '' where it is not known}.
    """
    unknown = dict.fromkeys(missing, '')
    asked: dict[str, str | None] = dict(uuids) or dict.fromkeys(missing)
    try:
        door = site.connections.find_coordinator(
            asked, aggregate.metadata.get(pool_states.POOL_UUID)
        )
        listed = {
            identity.normal(each.address): each.uuid for each in door.hosts()
        }
        for host in missing:
            address = site.connections.access(host).address
            uuid = listed.get(identity.normal(address))
            if uuid and uuid not in uuids.values():
                unknown[host] = uuid
            elif _is_address(address):
                del unknown[host]
    except (exceptions.XapiError, exceptions.ConfigurationError) as error:
        LOG.warning(
            'Who belongs to the pool of %s is not known: %s',
            aggregate.name,
            error,
        )
    return unknown


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip('[]'))
    except ValueError:
        return False
    return True
