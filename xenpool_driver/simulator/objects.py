# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Classes whose messages need a little more than the data model says."""

from __future__ import annotations

import typing

from xenpool_driver.simulator import errors, registry, values


@registry.message('host.list_methods')
def _list_methods(call: registry.Call) -> typing.NoReturn:
    # XAPI itself never implemented it, and says so in these words.
    raise errors.not_implemented('list_method')


@registry.message('network.create')
def _network_create(call: registry.Call, fields: dict[str, typing.Any]) -> str:
    """Create a network; one that XAPI manages gets a free bridge."""
    values.check_storable(fields)
    db = call.db
    with db.lock:
        bridges = {record['bridge'] for record in db.all('network').values()}
        if not fields['bridge']:
            if not fields['managed']:
                raise errors.ApiError('INVALID_VALUE', 'bridge', '')
            fields = {**fields, 'bridge': _free_bridge(bridges)}
        elif fields['bridge'] in bridges and fields['managed']:
            raise errors.ApiError('BRIDGE_NAME_EXISTS', fields['bridge'])
        return db.create('network', fields)


def _free_bridge(taken: set[str]) -> str:
    number = 0
    while f'xapi{number}' in taken:
        number += 1
    return f'xapi{number}'


@registry.message('network.destroy')
def _network_destroy(call: registry.Call, ref: str) -> None:
    """Destroy a network that nothing is connected to."""
    db = call.db
    with db.lock:
        record = db.get('network', ref)
        if record['PIFs']:
            raise errors.ApiError('NETWORK_CONTAINS_PIF', *record['PIFs'][:1])
        attached = [
            vif
            for vif in record['VIFs']
            if db.exists(vif, 'VIF')
            and db.get('VIF', vif)['currently_attached']
        ]
        if attached:
            raise errors.ApiError('NETWORK_CONTAINS_VIF', *attached[:1])
        db.delete('network', ref)
