# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Settings of a host that stand in its record twice.

``host.iscsi_iqn`` and ``host.multipathing`` are fields, and were keys of
other_config before. A coordinator keeps them in step: what is written to the
key is written to the field, and the other way round
(xapi_host_helpers.ml, xapi_host.ml).
"""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    errors,
    prechecks,
    registry,
    values,
)

IQN, MULTIPATHING = 'iscsi_iqn', 'multipathing'

FLAGS = {'true': True, 'false': False}
"""The values of the key ``multipathing`` that say something."""


def follow(db: database.Database, host: str) -> None:
    """Let a host's fields say what its other_config says.

    A key that is not there changes nothing, nor does a rolling upgrade.
    """
    pool = prechecks.only_pool(db)
    if 'rolling_upgrade_in_progress' in pool['other_config']:
        return
    config = db.get('host', host)['other_config']
    changes: dict[str, object] = {}
    if config.get(IQN):
        changes[IQN] = config[IQN]
    if config.get(MULTIPATHING) in FLAGS:
        changes[MULTIPATHING] = FLAGS[config[MULTIPATHING]]
    if changes:
        db.set('host', host, **changes)


@registry.message('host.set_iscsi_iqn')
def set_iscsi_iqn(call: registry.Call, host: str, value: str) -> None:
    """Give a host its name as an iSCSI initiator."""
    if not value:
        raise errors.ApiError('INVALID_VALUE', 'value', value)
    values.check_storable(value)
    call.db.set('host', host, iscsi_iqn=value)
    call.db.put_in_map('host', host, 'other_config', IQN, value)


@registry.message('host.set_multipathing')
def set_multipathing(call: registry.Call, host: str, value: bool) -> None:
    """Let a host reach storage on several ways, or on one."""
    text = 'true' if value else 'false'
    call.db.set('host', host, multipathing=value)
    call.db.put_in_map('host', host, 'other_config', MULTIPATHING, text)


@registry.message('host.set_other_config')
def set_other_config(
    call: registry.Call, self: str, value: dict[str, str]
) -> None:
    """Replace a host's other_config."""
    values.check_storable(value)
    call.db.set('host', self, other_config=value)
    follow(call.db, self)


@registry.message('host.add_to_other_config')
def add_to_other_config(
    call: registry.Call, self: str, key: str, value: str
) -> None:
    """Add a key to a host's other_config."""
    values.check_storable([key, value])
    call.db.add_to_map('host', self, 'other_config', key, value)
    follow(call.db, self)
