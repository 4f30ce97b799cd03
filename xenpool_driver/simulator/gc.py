# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The coordinators' garbage collection: every 30 s, as db_gc.ml does it.

It decides who is alive, removes what refers to nothing, notices rolling
upgrades, and sees to it that databases get to disk now and then.
"""

from __future__ import annotations

from xenpool_driver.simulator import (
    database,
    event_queue,
    ha,
    lifecycle,
    machine,
    sessions,
    startup,
    tasks,
    world,
)

ROLLING_UPGRADE = 'rolling_upgrade_in_progress'

OWNED: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ('VDI', (('SR', 'SR'),)),
    ('PIF', (('host', 'host'), ('network', 'network'))),
    ('Cluster_host', (('host', 'host'), ('cluster', 'Cluster'))),
    ('VBD', (('VM', 'VM'),)),
    ('VIF', (('VM', 'VM'), ('network', 'network'))),
    ('PBD', (('host', 'host'), ('SR', 'SR'))),
    ('host_cpu', (('host', 'host'),)),
    ('console', (('VM', 'VM'),)),
    ('VLAN', (('tagged_PIF', 'PIF'), ('untagged_PIF', 'PIF'))),
    ('Bond', (('master', 'PIF'),)),
    ('tunnel', (('access_PIF', 'PIF'), ('transport_PIF', 'PIF'))),
)
"""Class -> the fields without whose object a row makes no sense."""


def start(where: world.World) -> None:
    """Begin the passes of all coordinators of ``where``."""
    interval = where.timings.gc_interval
    due = where.clock.now() + interval
    where.clock.call_later(interval, _tick, where, due)


def _tick(where: world.World, due: float) -> None:
    """Make a pass; those that a jump in time has skipped are not made."""
    try:
        for target in list(where.machines):
            process = target.process
            if process is None or process.database is None:
                continue
            if not target.frozen and not process.ended:
                single_pass(target, process, process.database)
        ha.watch(where)
    finally:
        interval = where.timings.gc_interval
        missed = (where.clock.now() - due) // interval
        delay = (max(missed, 0) + 1) * interval
        where.clock.call_later(delay, _tick, where, due + delay)


def single_pass(
    target: machine.Machine,
    process: machine.Process,
    db: database.Database,
) -> None:
    """Make one pass over one coordinator's database."""
    if process.swept != db.generation:
        remove_orphans(db)
        process.swept = db.generation
    sessions.collect_garbage(db)
    tasks.collect_garbage(db)
    event_queue.heartbeat(db)
    if len(db.refs('host')) > 1:
        check_liveness(target, process, db)
    detect_rolling_upgrade(target, db)
    now = target.clock.now()
    if now - process.last_flush >= target.world.timings.flush_interval:
        lifecycle.flush(target)


def check_liveness(
    target: machine.Machine,
    process: machine.Process,
    db: database.Database,
) -> None:
    """Set host_metrics.live by the heartbeats.

    A host that was never heard of counts as alive at first (recorded).
    With HA, being in touch is what counts.
    """
    now = target.clock.now()
    ha = any(pool['ha_enabled'] for pool in db.all('pool').values())
    in_touch = {m.uuid for m in target.world.members_of(target)}
    for ref, record in db.all('host').items():
        uuid = record['uuid']
        if uuid == target.uuid or uuid in process.shutting_down:
            continue
        if uuid in in_touch or uuid not in process.heartbeats:
            process.heartbeats[uuid] = now
        silence = now - process.heartbeats[uuid]
        alive = silence < target.world.timings.heartbeat_lost
        if ha:
            alive = uuid in in_touch
        startup.set_live(db, ref, alive)


def remove_orphans(db: database.Database) -> None:
    """Remove rows whose owner is gone, with what belongs to them."""
    with db.lock:
        for cls, owners in OWNED:
            for ref, record in db.all(cls).items():
                if any(
                    record[field] not in db.table(other).rows
                    for field, other in owners
                ):
                    db.delete(cls, ref)
        _remove_certificates(db)
        _remove_metrics(db, 'host_metrics', 'host')
        _remove_metrics(db, 'PIF_metrics', 'PIF')


def _remove_certificates(db: database.Database) -> None:
    hosts = db.table('host').rows
    for ref, record in db.all('Certificate').items():
        of_host = record['type'] in {'host', 'host_internal'}
        if of_host and record['host'] not in hosts:
            db.delete('Certificate', ref)


def _remove_metrics(db: database.Database, cls: str, owner: str) -> None:
    used = {record['metrics'] for record in db.all(owner).values()}
    for ref in db.refs(cls):
        if ref not in used:
            db.delete(cls, ref)


def detect_rolling_upgrade(
    target: machine.Machine, db: database.Database
) -> None:
    """Say in pool.other_config whether hosts differ in their platform."""
    hosts = db.all('host').values()
    if len(hosts) == 1:
        return
    versions = {h['software_version'].get('platform_version') for h in hosts}
    for ref, pool in db.all('pool').items():
        if len(versions) > 1 and ROLLING_UPGRADE not in pool['other_config']:
            db.put_in_map('pool', ref, 'other_config', ROLLING_UPGRADE, 'true')
        if len(versions) == 1 and ROLLING_UPGRADE in pool['other_config']:
            db.remove_from_map('pool', ref, 'other_config', ROLLING_UPGRADE)
