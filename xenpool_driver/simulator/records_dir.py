# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Recorded pools as hosts of the simulated world.

A JSON file holds one pool: ``{class: {ref: record}}``, records as
``XenAPI`` returns them from ``get_all_records``. Its hosts become machines
with addresses of the simulator's; all else stays as recorded.
"""

from __future__ import annotations

import collections.abc
import json
import logging
import pathlib
import re
import typing

from xenpool_driver.simulator import (
    build,
    database,
    datamodel,
    errors,
    hardware,
    lifecycle,
    machine,
    profiles,
    world,
)

LOG = logging.getLogger(__name__)

Record = dict[str, typing.Any]
Records = dict[str, dict[str, Record]]


_HOST_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9.-]{0,62}')


class BadRecords(Exception):
    """A file that is no dump of a pool; the text says why."""


def load_dir(
    where: world.World,
    directory: pathlib.Path,
    free: collections.abc.Iterator[str],
    password: str,
    profile: profiles.Profile = profiles.CURRENT,
) -> list[machine.Machine]:
    """Put the pools of all JSON files of ``directory`` into ``where``.

    Files that hold JSON without a host are skipped.

    :param free: addresses for the hosts, in the files' order.
    :raises BadRecords: naming the file and what is wrong with it.
    """
    if not directory.is_dir():
        raise BadRecords(f'{directory} is no directory')
    hosts: list[machine.Machine] = []
    for path in sorted(directory.glob('*.json')):
        records = read(path)
        if not records.get('host'):
            LOG.info('%s holds no host: skipped', path)
            continue
        try:
            hosts += add_pool(where, records, free, password, profile)
        except (ValueError, KeyError, errors.ApiError) as error:
            raise BadRecords(f'{path}: {error}') from error
    if not hosts:
        raise BadRecords(f'{directory} holds no JSON file with hosts')
    return hosts


def read(path: pathlib.Path) -> Records:
    """Return the records of a file, of the classes that are known.

    :raises BadRecords: when it cannot be read or has another form.
    """
    try:
        raw = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise BadRecords(f'{path}: {error}') from error
    if not isinstance(raw, dict):
        raise BadRecords(f'{path}: not an object of classes')
    return {cls: rows for cls, rows in raw.items() if isinstance(rows, dict)}


def clean(records: collections.abc.Mapping[str, typing.Any]) -> Records:
    """Return what the data model knows of ``records``, without tasks."""
    model = datamodel.load()
    kept: Records = {}
    for cls, rows in records.items():
        known = model.classes.get(cls)
        if known is None or not rows or cls in database.VOLATILE:
            if rows and known is None:
                LOG.info('class %s is not simulated: left out', cls)
            continue
        kept[cls] = {
            ref: {k: v for k, v in row.items() if k in known.fields}
            for ref, row in rows.items()
        }
    return kept


def add_pool(
    where: world.World,
    records: collections.abc.Mapping[str, typing.Any],
    free: collections.abc.Iterator[str],
    password: str,
    profile: profiles.Profile = profiles.CURRENT,
) -> list[machine.Machine]:
    """Put one recorded pool into ``where``, its coordinator first.

    :raises ValueError: for records that contradict the data model or lack
        the pool's coordinator.
    """
    db = database.Database.from_records(clean(records), where.clock, where.rng)
    pools = list(db.all('pool').values())
    if len(pools) != 1:
        raise ValueError(f'{len(pools)} pool records where one is expected')
    coordinator = pools[0]['master']
    if not db.exists(coordinator, 'host'):
        raise ValueError(f"the pool's master {coordinator} is no host")
    order = sorted(db.refs('host'), key=lambda ref: ref != coordinator)
    machines = [
        _place_host(where, db, ref, next(free), password, profile)
        for ref in order
    ]
    master = machines[0]
    lifecycle.start_now(master, db)
    for member in machines[1:]:
        member.role_file = machine.Role(machine.SLAVE, master.address)
        member.secret = master.secret
        lifecycle.start_now(member, None)
        member.disk = master.disk
    build.arm(master, db)
    _note_heartbeats(master, machines)
    return machines


def _note_heartbeats(
    master: machine.Machine, machines: list[machine.Machine]
) -> None:
    """Let the coordinator have heard of its members just now."""
    process = master.process
    if process is not None:
        now = master.clock.now()
        process.heartbeats = {target.uuid: now for target in machines}


def _place_host(
    where: world.World,
    db: database.Database,
    host: str,
    address: str,
    password: str,
    profile: profiles.Profile,
) -> machine.Machine:
    record = db.get('host', host)
    target = build.place(
        where,
        _free_name(where, record),
        address,
        password,
        profile,
        parts=hardware.of_records(db, host),
        uuid=record['uuid'],
    )
    if record['address']:
        _move(db, host, record['address'], address)
    return target


def _free_name(where: world.World, record: Record) -> str:
    """Return a name for a machine: its label, if that can be a host name."""
    taken = {other.name for other in where.machines}
    names = (record['name_label'], record['hostname'], 'host')
    name = next(name for name in names if _HOST_NAME.fullmatch(name))
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f'{name}-{number}'
    return candidate


def _move(db: database.Database, host: str, old: str, new: str) -> None:
    """Write a host's new address wherever the old one stood."""
    db.set('host', host, address=new)
    for ref, pif in db.all('PIF').items():
        if pif['host'] == host and pif['IP'] == old:
            db.set('PIF', ref, IP=new)
    domains = {
        ref for ref, vm in db.all('VM').items() if vm['resident_on'] == host
    }
    for ref, console in db.all('console').items():
        location = console['location'].replace(f'//{old}/', f'//{new}/')
        if console['VM'] in domains and location != console['location']:
            db.set('console', ref, location=location)


def dump(target: machine.Machine) -> database.Records:
    """Return the records that ``target`` serves, as files hold them.

    :raises ValueError: when it serves none.
    """
    db = target.db
    if db is None:
        raise ValueError(f'{target.name} serves no database')
    records = db.dump()
    for cls in database.VOLATILE:
        records.pop(cls, None)
    return records
