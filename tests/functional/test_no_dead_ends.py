# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The proof that there is a way out of every state, and that it is printed.

Every combination of (state of the aggregate) x (state of the pool) x (size of
the pool) that can exist is made on simulated hosts. Then somebody who knows
nothing follows the audit: does literally what the worst finding's remedy says,
audits again, and so on. After six steps at most nothing fails or warns any
more, or the aggregate is dismissed. No remedy is refused, none is needed
twice, and no host is wiped that no remedy named.

Where a remedy leaves a choice ("switch on xen01, or, if it is gone for good:
...") each of the two is followed, in runs of their own.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import re
import shlex
import time
import typing

import pytest

from tests import conftest
from tests.functional import desk, driver_lab
from xenpool_driver import conf as config
from xenpool_driver import driver, operation, pool_states, store, verbs
from xenpool_driver.simulator import mishaps
from xenpool_driver.verbs import voting

STEPS = 6

TOPOLOGY = """
pools:
  - name: web
    hosts: [{hosts}]
    srs:
      - {{name: nfs1, type: nfs, shared: true, size_gib: 500, default: true,
         device_config: {{server: 127.0.77.200, serverpath: /srv}}}}
"""

Spoil = collections.abc.Callable[[desk.Desk, list[str]], None]


def nothing(web: desk.Desk, hosts: list[str]) -> None:
    """The pool is healthy."""


def master_dead(web: desk.Desk, hosts: list[str]) -> None:
    web.kill(hosts[0])


def master_reinstalled(web: desk.Desk, hosts: list[str]) -> None:
    mishaps.install_anew(web.machine(hosts[0]))


def member_dead(web: desk.Desk, hosts: list[str]) -> None:
    web.kill(hosts[-1])


def member_reinstalled(web: desk.Desk, hosts: list[str]) -> None:
    mishaps.install_anew(web.machine(hosts[-1]))


def all_dead(web: desk.Desk, hosts: list[str]) -> None:
    web.kill(*hosts)


def all_reinstalled(web: desk.Desk, hosts: list[str]) -> None:
    for host in hosts:
        mishaps.install_anew(web.machine(host))


def split(web: desk.Desk, hosts: list[str]) -> None:
    """The last member was cut off, and promoted there by hand."""
    web.lab.world.isolate(web.machine(hosts[-1]))
    with web.local(hosts[-1]) as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(60)
    web.lab.world.heal()


def split_from_the_master(web: desk.Desk, hosts: list[str]) -> None:
    """The master was cut off, and another one promoted by the others."""
    web.lab.world.isolate(web.machine(hosts[0]))
    with web.local(hosts[1]) as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(60)
    with driver_lab.session(web.lab, web.host(hosts[1])) as api:
        api.pool.recover_slaves()
    web.pass_time(60)
    web.lab.world.heal()


def half_joined(web: desk.Desk, hosts: list[str]) -> None:
    """The joining host lost its power before it had restarted."""
    joiner = web.machine('free1')
    orphan(web, 'join', 'free1')
    with driver_lab.session(web.lab, web.host('free1')) as api:
        address = web.machine(hosts[0]).address
        api.pool.join(address, 'root', driver_lab.PASSWORD)
    mishaps.kill(joiner)


def joiner_stuck(web: desk.Desk, hosts: list[str]) -> None:
    """The master's toolstack restarted before the joiner did (recorded)."""
    master = web.machine(hosts[0])
    orphan(web, 'join', 'free1')
    with driver_lab.session(web.lab, web.host('free1')) as api:
        api.pool.join(master.address, 'root', driver_lab.PASSWORD)
    mishaps.restart_toolstack(master)
    web.pass_time(60)


def half_promoted(web: desk.Desk, hosts: list[str]) -> None:
    """A member was promoted, and nobody told the others."""
    web.kill(hosts[0])
    with web.local(hosts[1]) as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(60)


def passwords_differ(web: desk.Desk, hosts: list[str]) -> None:
    """The configuration has the password from before the join."""
    text = web.path.read_text()
    head, mark, tail = text.partition(f"[{hosts[-1]}]")
    password = f"connection_password = {driver_lab.PASSWORD}"
    assert mark
    assert password in tail
    tail = tail.replace(password, 'connection_password = of-its-own', 1)
    web.path.write_text(head + mark + tail)


def stamp_lost(web: desk.Desk, hosts: list[str]) -> None:
    with driver_lab.session(web.lab, web.host(hosts[0])) as api:
        [pool] = api.pool.get_all()
        api.pool.remove_from_other_config(pool, pool_states.OWNER_KEY)


def ha_unrestored(web: desk.Desk, hosts: list[str]) -> None:
    """HA could not be switched on again after a change of master."""
    with driver_lab.session(web.lab, web.host(hosts[0])) as api:
        [nfs] = api.SR.get_by_name_label('nfs1')
        api.pool.enable_ha([nfs], {})
        [pool] = api.pool.get_all()
        api.pool.set_ha_host_failures_to_tolerate(pool, '1')
    for method in ('pool.enable_ha', 'Async.pool.enable_ha'):
        web.lab.faults.refuse(method, 'HA_NO_PLAN', times=None)
    result = web('aggregate', 'set', 'master', 'web', hosts[1], '--suspend-ha')
    assert result.status == 1, result
    web.lab.faults.clear()


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A state of the pool.

    :ivar spoil: makes it of a healthy pool.
    :ivar sizes: of the pools that can be in it.
    :ivar choice: whether the first remedy leaves a choice: a host is dead,
        or is given up.
    :ivar changing: whether a set-up that broke off can have left it.
    """

    spoil: Spoil
    sizes: tuple[int, ...] = (1, 2, 3)
    choice: bool = False
    changing: bool = True


POOLS = {
    'healthy': PoolState(nothing),
    'master dead': PoolState(master_dead, (2, 3), choice=True),
    'master reinstalled': PoolState(master_reinstalled, (2, 3)),
    'member dead': PoolState(member_dead, (2, 3), choice=True),
    'member reinstalled': PoolState(member_reinstalled, (2, 3)),
    'all dead': PoolState(all_dead, choice=True),
    'all reinstalled': PoolState(all_reinstalled),
    'split with two masters': PoolState(split, (3,)),
    # As many follow the one as the other.
    'split in halves': PoolState(split, (2,), choice=True),
    'split, most with a new master': PoolState(split_from_the_master, (3,)),
    # A join, a set master and their leavings need an aggregate that is active.
    'half joined': PoolState(half_joined, choice=True, changing=False),
    'joiner stuck': PoolState(joiner_stuck, changing=False),
    'half promoted': PoolState(half_promoted, (2, 3), choice=True),
    'passwords differ': PoolState(passwords_differ, (2, 3)),
    'stamp lost': PoolState(stamp_lost, changing=False),
    'HA unrestored': PoolState(ha_unrestored, (2, 3), changing=False),
}
"""In a pool of one the master is all there is. A set-up that broke off has
not stamped the pool yet, and runs neither joins nor changes of master."""


def orphan(web: desk.Desk, kind: str, host: str) -> None:
    """Let a worker begin an operation, and die."""
    conf = config.load([str(web.path)])
    with contextlib.closing(store.open_store(conf)) as database:
        worker = driver.XenAPIPoolDriver(conf=conf, database=database)
        row = database.get_aggregate('web')
        verb: operation.Verb
        if kind == 'join':
            verb = verbs.Join(worker.site, row, host)
        else:
            known = config.known_hosts(conf)
            verb = verbs.Adopt(worker.site, row, host, known)
        verb.prepare()
        database.begin(
            row.uuid,
            kind,
            host,
            'a worker that died',
            0.01,
            verb.intent(),
            lambda row, running: operation.admit(verb, row, running),
        )
        worker.site.connections.close()
    time.sleep(0.05)


def active(web: desk.Desk, spoil: Spoil, hosts: list[str]) -> None:
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    spoil(web, hosts)


def error(web: desk.Desk, spoil: Spoil, hosts: list[str]) -> None:
    active(web, spoil, hosts)
    with contextlib.closing(
        store.open_store(config.load([str(web.path)]))
    ) as database:
        row = database.get_aggregate('web')
        database.update_metadata(
            row.uuid, row.generation, {pool_states.STATE: pool_states.ERROR}
        )


def changing(web: desk.Desk, spoil: Spoil, hosts: list[str]) -> None:
    web.done('aggregate', 'create', 'web')
    orphan(web, 'adopt', 'xen01')
    spoil(web, hosts)


AGGREGATES = {
    pool_states.ACTIVE: active,
    pool_states.ERROR: error,
    pool_states.CHANGING: changing,
}
"""``created`` has no pool, ``dismissed`` has none any more: see below."""

CHOICES = ('first', 'last')
"""Of a remedy that leaves a choice."""


Combination = tuple[str, str, int, str]
"""States of aggregate and pool, size of the pool, what is chosen."""


def combinations() -> list[Combination]:
    """Return what can exist."""
    return [
        (aggregate, name, size, choice)
        for aggregate in AGGREGATES
        for name, pool in POOLS.items()
        for size in pool.sizes
        for choice in CHOICES
        if aggregate != pool_states.CHANGING or pool.changing
        if pool.choice or choice == 'last'
    ]


def drawn() -> list[Combination]:
    """Return all, or in CI's profile pools of 2 and 3 and one aggregate
    state for each state of the pool."""
    if conftest.PROFILE == 'matrix':
        return combinations()
    return [
        one
        for one in combinations()
        if one[0] == pool_states.ACTIVE and one[2] > 1
    ]


class Walker:
    """Follows remedies without a thought.

    :param web: where commands are typed.
    :param choice: one of :data:`CHOICES`.
    """

    def __init__(self, web: desk.Desk, choice: str) -> None:
        self.web = web
        self.choice = choice
        self.taken: list[str] = []
        self.choices = 0
        self.wiped = {one.name: one.uuid for one in web.lab.world.machines}
        self.allowed: set[str] = set()

    def walk(self) -> None:
        """Follow the audit until it is clean or the aggregate dismissed.

        :raises AssertionError: that does not come to a good end.
        """
        for _ in range(STEPS + 1):
            self.web.settle()
            if self._is_dismissed():
                break
            found = self.web.audit()
            if not found or found[0]['severity'] == 'unknown':
                break
            assert len(self.taken) < STEPS, (self.taken, found)
            self._follow(found[0])
        else:
            raise AssertionError(self.taken)
        now = {one.name: one.uuid for one in self.web.lab.world.machines}
        assert {
            name for name in now if now[name] != self.wiped[name]
        } <= self.allowed
        assert 'Async.pool.eject' not in self.web.lab.calls()
        assert 'pool.eject' not in self.web.lab.calls()

    def _is_dismissed(self) -> bool:
        return self.web('aggregate', 'show', 'web').status != 0

    def _follow(self, finding: dict[str, typing.Any]) -> None:
        remedy = finding['remedy']
        assert remedy, finding
        first, way, last = remedy.partition(', or, if ')
        if way:
            self.choices += 1
            last = last.partition(': ')[2]
            remedy = first if self.choice == 'first' else last
        assert remedy not in self.taken, (finding, self.taken)
        self.taken.append(remedy)
        for part in re.split('(?:, |; )then: |; ', remedy):
            self._do(part, finding)

    def _do(self, part: str, finding: dict[str, typing.Any]) -> None:
        for pattern, action in ACTIONS.items():
            if match := re.fullmatch(pattern, part):
                action(self, *match.groups())
                return
        raise AssertionError(f"what is {part!r}? {finding}")

    def switch_on(self, host: str) -> None:
        mishaps.power_on(self.web.machine(host))
        self.web.pass_time(120)

    def switch_off(self, host: str) -> None:
        if self.web.machine(host).powered:
            mishaps.kill(self.web.machine(host))

    def install_anew(self, host: str) -> None:
        self.allowed.add(host)
        mishaps.install_anew(self.web.machine(host))
        self.web.pass_time(120)

    def wait(self) -> None:
        self.web.pass_time(60)

    def type(self, words: str) -> None:
        command = shlex.split(words)
        result = self.web(*command)
        looks = command[1] in ('audit', 'recover')
        assert result.status in ((0, 1) if looks else (0,)), (words, result)
        self.web.pass_time(30)

    def type_xe(self, host: str, words: str) -> None:
        if not host:
            host = self.web.shown()['master']
        name, *pairs = shlex.split(words)
        options = dict(pair.split('=', 1) for pair in pairs)
        XE[name](self.web, host, options)
        self.web.pass_time(60)

    def take_password(self, host: str, other: str) -> None:
        text = self.web.path.read_text()
        sections = dict(re.findall(r'\[(\w+)\]\n([^[]*)', text))
        password = re.search('connection_password = .*', sections[other])
        assert password
        section = re.sub(
            'connection_password = .*', password.group(), sections[host]
        )
        self.web.path.write_text(text.replace(sections[host], section))


HOST = '([a-z0-9]+)'

ACTIONS: dict[str, typing.Callable[..., None]] = {
    f"switch on {HOST}": Walker.switch_on,
    f"switch off {HOST}": Walker.switch_off,
    rf"install anew {HOST} \(its disks are wiped\)": Walker.install_anew,
    'wait a minute': Walker.wait,
    'xenpool (.*)': Walker.type,
    f"on {HOST}: xe (.*)": Walker.type_xe,
    '()xe (.*)': Walker.type_xe,
    rf"set connection_username and connection_password in section "
    rf"\[{HOST}\] to those of section \[{HOST}\]": Walker.take_password,
}
"""What a remedy can tell to do."""

Options = dict[str, str]


def emergency_reset_master(
    web: desk.Desk, host: str, options: Options
) -> None:
    with web.local(host) as api:
        api.pool.emergency_reset_master(options['master-address'])


def enable_ha(web: desk.Desk, host: str, options: Options) -> None:
    with driver_lab.session(web.lab, web.host(host)) as api:
        uuids = options.get('heartbeat-sr-uuids', '')
        srs = [api.SR.get_by_uuid(one) for one in uuids.split(',') if one]
        api.pool.enable_ha(srs, {})


def set_pool(web: desk.Desk, host: str, options: Options) -> None:
    with driver_lab.session(web.lab, web.host(host)) as api:
        pool = api.pool.get_by_uuid(options['uuid'])
        api.pool.set_ha_host_failures_to_tolerate(
            pool, options['ha-host-failures-to-tolerate']
        )


def forget_sr(web: desk.Desk, host: str, options: Options) -> None:
    with driver_lab.session(web.lab, web.host(host)) as api:
        api.SR.forget(api.SR.get_by_uuid(options['uuid']))


XE: dict[str, collections.abc.Callable[[desk.Desk, str, Options], None]] = {
    'pool-emergency-reset-master': emergency_reset_master,
    'pool-ha-enable': enable_ha,
    'pool-param-set': set_pool,
    'sr-forget': forget_sr,
}
"""What XAPI's own command line does; it is no part of the simulator."""


@pytest.mark.matrix
@pytest.mark.parametrize(('aggregate', 'pool', 'size', 'choice'), drawn())
def test_the_audit_leads_out(
    aggregate: str,
    pool: str,
    size: int,
    choice: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = [f"xen{number:02}" for number in range(1, size + 1)]
    topology = TOPOLOGY.format(hosts=', '.join(hosts))
    if pool in ('half joined', 'joiner stuck'):
        topology += 'hosts: [{name: free1}]\n'
    monkeypatch.setattr(voting, 'DATABASE_SILENCE', 1.0)  # of our seconds
    with desk.seated(tmp_path, topology, capsys, monkeypatch) as web:
        # A joiner that died is waited for as long as a join may take.
        web.set_option('join_timeout', 90)
        AGGREGATES[aggregate](web, POOLS[pool].spoil, hosts)
        walker = Walker(web, choice)
        walker.walk()
        if aggregate == pool_states.ACTIVE:
            assert bool(walker.choices) == POOLS[pool].choice or size == 2


@pytest.mark.parametrize('dismissed', [False, True])
def test_an_aggregate_without_a_pool_is_clean(
    dismissed: bool,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topology = 'hosts: [{name: xen01}]\n'
    with desk.seated(tmp_path, topology, capsys, monkeypatch) as web:
        web.done('aggregate', 'create', 'web')
        assert web.audit() == []
        web.done('aggregate', 'delete', 'web')
        assert web('aggregate', 'show', 'web').status != 0
