# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Hosts that are not who their address says, by real commands.

Situations from reports of people who run pools.
"""

from __future__ import annotations

import collections.abc
import pathlib
import re
import time
import typing

import pytest

from tests.functional import cli_lab, desk, driver_lab
from xenpool_driver.simulator import mishaps

Sit = collections.abc.Callable[..., desk.Desk]


@pytest.fixture
def sit(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Sit:
    """Return what seats somebody in front of the hosts of a topology."""

    def seat(topology: str, **options: typing.Any) -> desk.Desk:
        seated = desk.seated(tmp_path, topology, capsys, monkeypatch)
        found = seated.__enter__()
        request.addfinalizer(lambda: seated.__exit__(None, None, None))
        return found

    return seat


COPIES = """
pools:
  - hosts:
      - name: xen01
        uuid: 11111111-2222-4333-8444-555555555555
        set: {pool: {uuid: aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee}}
  - hosts:
      - name: xen02
        uuid: 11111111-2222-4333-8444-555555555555
        set: {pool: {uuid: aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee}}
  - hosts:
      - name: xen03
        uuid: 33333333-2222-4333-8444-555555555555
        set: {pool: {uuid: aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee}}
"""


def test_a_copied_installation(sit: Sit) -> None:
    """The host uuid of another machine is refused; a pool uuid is not."""
    web = sit(COPIES)
    web.done('aggregate', 'create', 'web')
    web.done('aggregate', 'add', 'host', 'web', 'xen01')
    there = web.machine('xen02').address

    result = web('aggregate', 'check', 'web', 'xen02')
    copied = web.findings('aggregate', 'check', 'web', 'xen02')
    alike = web.findings('aggregate', 'check', 'web', 'xen03')
    added = web('aggregate', 'add', 'host', 'web', 'xen03')

    assert result.status == 3
    [worst, *_] = [one for one in copied if one['severity'] == 'fail']
    assert (
        f"another machine at {there} has the host uuid of xen01"
        in (worst['message'])
    )
    assert worst['remedy'].startswith('install anew xen02')
    assert 'connection_url' not in str(copied)
    assert not any(one['severity'] == 'fail' for one in alike)
    assert 'same-pool-uuid' in {one['check'] for one in alike}
    assert added.status == 0, added
    assert web.machine('xen03').role == ('slave', web.machine('xen01').address)


THREE = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03]
"""


def promoted_apart(web: desk.Desk) -> None:
    """Let xen03 be cut off and promoted, then forgotten, then healed."""
    world = web.lab.world
    lonely = web.machine('xen03')
    world.isolate(lonely)
    with web.local('xen03') as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(700)
    with driver_lab.session(web.lab, web.lab.hosts[0]) as api:
        ref = api.host.get_by_uuid(lonely.uuid)
        api.host.destroy(ref)
    world.heal()
    web.pass_time(60)  # what the forgotten host leaves is collected
    web.settle()


def test_a_second_master_of_the_same_pool(sit: Sit) -> None:
    web = sit(THREE)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    promoted_apart(web)

    told = web.audit()
    result = web('aggregate', 'check', 'web', 'xen03')
    judged = web.findings('aggregate', 'check', 'web', 'xen03')
    fixed = web('aggregate', 'audit', 'web', '--fix')
    again = web('aggregate', 'add', 'host', 'web', 'xen03')

    assert 'second copy of this pool' in told[0]['message']
    assert 'pool-emergency-reset-master' not in str(told)
    assert told[0]['remedy'] == 'xenpool aggregate audit web --fix'
    assert fixed.status == 0, fixed
    assert sorted(web.shown()['hosts']) == ['xen01', 'xen02']
    assert result.status == 3
    [worst] = [
        one
        for one in judged
        if one['predicts'] == ['JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS']
    ]
    assert 'another copy of this pool' in worst['message']
    assert 'xen01' in worst['message']
    assert worst['remedy'].startswith('install anew xen03')
    assert again.status == 3


REINSTALLED = """
pools:
  - name: web
    hosts: [xen01, xen02]
"""


def test_a_member_that_was_installed_anew(sit: Sit) -> None:
    """One remedy: forget the old record. Then the host joins again."""
    web = sit(REINSTALLED)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    old = web.machine('xen02').uuid
    mishaps.install_anew(web.machine('xen02'))
    web.pass_time(900)

    [told, *more] = web.audit()
    assert not more, more
    judged = web.findings('aggregate', 'check', 'web', 'xen02')
    refused = web('aggregate', 'remove', 'host', 'web', 'xen02', '--yes')
    command = told['remedy'].split()[1:]
    forgotten = web(*command)
    added = web('aggregate', 'add', 'host', 'web', 'xen02')

    assert 'installed anew' in told['message']
    assert old in told['message']
    assert command == [
        *('aggregate', 'remove', 'host', 'web', 'xen02'),
        *('--forget', '--yes'),
    ]
    [finding] = [one for one in judged if one['severity'] == 'fail']
    assert finding['check'] == 'old-record'
    assert finding['remedy'] == told['remedy']
    assert not {'duplicate-name', 'duplicate-address', 'members-live'} & {
        one['check'] for one in judged
    }
    assert refused.status == 3
    assert '--forget' in refused.err
    assert forgotten.status == 0, forgotten
    assert added.status == 0, added
    assert cli_lab.memberships(web.lab) == {('xen01', 'xen02')}
    assert web.machine('xen02').uuid in str(web.shown()['properties'])


BUSY = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03]
    srs:
      - {name: nfs1, type: nfs, shared: true, size_gib: 500, default: true,
         device_config: {server: 127.0.77.200, serverpath: /srv}}
    vms:
      - {name: web2, host: xen02, power_state: Running, memory_gib: 2,
         disks: [{sr: nfs1, size_gib: 8}]}
"""


def declare_dead(web: desk.Desk, command: str) -> None:
    """Do what ``xe host-declare-dead uuid=...`` does."""
    uuid = command.removeprefix('xe host-declare-dead uuid=')
    with driver_lab.session(web.lab, web.host('xen01')) as api:
        api.host.declare_dead(api.host.get_by_uuid(uuid))


def test_a_member_with_machines_that_was_installed_anew(sit: Sit) -> None:
    """The virtual machines of the old installation are declared off first;
    nothing that the audit advises is refused."""
    web = sit(BUSY)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    old = web.machine('xen02').uuid
    mishaps.install_anew(web.machine('xen02'))
    web.pass_time(300)
    web.settle()

    [told] = web.audit()
    judged = web.findings('aggregate', 'check', 'web', 'xen02')
    refused = web('aggregate', 'remove', 'host', 'web', 'xen02')
    nowhere, way, commands = told['remedy'].partition(', then: ')
    declare, forget = commands.split('; ')
    declare_dead(web, declare)
    forgotten = web(*forget.split()[1:])

    assert nowhere == 'make sure that web2 runs nowhere'
    assert way
    assert declare.endswith(old)
    # Between the two looks at the clocks simulated time runs on.
    noisy = ('clocks', 'certificate-dates')
    [finding] = [
        one
        for one in judged
        if one['severity'] != 'pass' and one['check'] not in noisy
    ]
    assert finding['check'] == 'old-record'
    assert finding['remedy'] == told['remedy']
    assert refused.status == 3
    assert told['remedy'] in refused.err
    for never in ('--drain', 'vm-shutdown', 'would be wiped'):
        assert never not in refused.err
    assert forgotten.status == 0, forgotten
    web.done('aggregate', 'add', 'host', 'web', 'xen02')


ROLES = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03]
    srs:
      - {name: nfs1, type: nfs, shared: true, size_gib: 500,
         device_config: {server: 127.0.77.200, serverpath: /srv}}
      - {name: vg, type: lvm, host: xen02, default: true}
    vms:
      - {name: run2, host: xen02, power_state: Running, memory_gib: 2,
         disks: [{sr: nfs1, size_gib: 20}]}
      - {name: build, power_state: Halted, memory_gib: 2,
         disks: [{sr: vg, size_gib: 20}, {sr: vg, size_gib: 5}]}
"""


def test_a_dead_host_with_the_default_storage(sit: Sit) -> None:
    """Forgetting tells of the default SR; so does the audit afterwards."""
    web = sit(ROLES)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen02')

    [told] = web.audit()
    removing = ('aggregate', 'remove', 'host', 'web', 'xen02')
    ejected = web(*removing)
    declare, forget = told['remedy'].partition(', then: ')[2].split('; ')
    declare_dead(web, declare)
    asked = web(*removing, '--forget')
    web.done(*forget.split()[1:])
    web.pass_time(60)
    after = {one['check']: one for one in web.audit()}

    assert ejected.status == asked.status == 3
    assert told['remedy'] in ejected.err
    for never in ('--drain', 'vm-shutdown', 'vm-copy', 'would be'):
        assert never not in ejected.err
    assert 'vg is the default SR of the pool web' in asked.err
    assert re.search('storage vg stays, .* 2 disks .* of build', asked.err)
    assert set(after) == {'unconnected-storage', 'storage-roles'}
    roles = after['storage-roles']
    assert 'vg is the default SR of the pool web' in roles['message']
    with driver_lab.session(web.lab, web.host('xen01')) as api:
        [nfs] = api.SR.get_by_name_label('nfs1')
        assert roles['remedy'].endswith(f"default-SR={api.SR.get_uuid(nfs)}")
    assert 'build on vg' in after['unconnected-storage']['message']
    assert 'run2' not in str(after)


STORAGE = """
pools:
  - name: web
    hosts: [xen01, xen02, xen03]
    srs:
      - {name: nfs1, type: nfs, shared: true, size_gib: 500, default: true,
         device_config: {server: 127.0.77.200, serverpath: /srv}}
      - {name: scratch, type: ext, host: xen03}
    vms:
      - {name: build, power_state: Halted, memory_gib: 2,
         disks: [{sr: scratch, size_gib: 20}]}
"""


def test_a_forgotten_host_leaves_storage(sit: Sit) -> None:
    """What forgetting leaves is listed, then found by the audit."""
    web = sit(STORAGE)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen03')
    web.pass_time(900)

    asked = web('aggregate', 'remove', 'host', 'web', 'xen03', '--forget')
    removing = ('aggregate', 'remove', 'host', 'web', 'xen03')
    forgotten = web(*removing, '--forget', '--yes')
    web.pass_time(60)
    told = web.audit()

    assert asked.status == 3
    assert '--yes agrees' in asked.err
    assert 'cannot eject itself' not in asked.err
    for name in ('scratch', 'Local storage', 'DVD drives'):
        assert f"the record of the storage {name}" in asked.err
    assert 'xe sr-forget uuid=' in asked.err
    assert forgotten.status == 0, forgotten
    assert {one['check'] for one in told} == {'unconnected-storage'}
    assert {one['severity'] for one in told} == {'warn'}
    [left] = told
    assert 'scratch' in left['message']
    commands = left['remedy'].split('; ')
    assert len(commands) == 4
    with driver_lab.session(web.lab, web.lab.hosts[0]) as api:
        for one in commands:
            uuid = one.removeprefix('xe sr-forget uuid=')
            api.SR.forget(api.SR.get_by_uuid(uuid))
    assert web.audit() == []


def test_a_dead_member_is_found_at_once(sit: Sit) -> None:
    """The master still takes it for alive: an eject would take 100 s."""
    web = sit(STORAGE)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen03')
    web.lab.faults.executed.clear()

    result = web('aggregate', 'remove', 'host', 'web', 'xen03', '--yes')
    unasked = web('aggregate', 'remove', 'host', 'web', 'xen03')
    alive = web(
        *('aggregate', 'remove', 'host', 'web', 'xen02', '--forget', '--yes')
    )
    [told] = web.audit()

    assert result.status == 3
    assert "'xen03' does not answer" in result.err
    forget = 'xenpool aggregate remove host web xen03 --forget --yes'
    assert forget in result.err
    assert 'Async.pool.eject' not in web.lab.calls('xen01')
    assert unasked.status == 3
    assert '--yes agrees' not in unasked.err
    assert alive.status == 3
    assert 'xenpool aggregate remove host web xen02\n' in alive.err
    assert told['severity'] == 'fail'
    assert 'host-enable' not in str(told)
    assert forget in told['remedy']
    assert web('aggregate', 'audit', 'web').status == 1
    web.done(*forget.split()[1:])
    assert sorted(web.shown()['hosts']) == ['xen01', 'xen02']


def test_two_hosts_by_hand(sit: Sit) -> None:
    """The master of two dies, and the other one is promoted by hand."""
    web = sit(THREE.replace(', xen03', ''))
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen01')
    with web.local('xen02') as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(120)

    told = web.audit()
    web('aggregate', 'audit', 'web', '--fix')
    after = web.audit()
    forget = after[0]['remedy'].partition('gone for good: ')[2]
    forgotten = web(*forget.split()[1:])

    assert {'owner', 'master'} <= {one['check'] for one in told}
    assert web.shown()['master'] == 'xen02'
    assert {one['check'] for one in after} == {'identity'}
    assert forgotten.status == 0, forgotten
    assert web.shown()['hosts'] == ['xen02']


def taken_over(web: desk.Desk) -> None:
    """Let xen01 be cut off while xen02 is promoted, and forgets xen01."""
    world = web.lab.world
    lonely = web.machine('xen01')
    world.isolate(lonely)
    with web.local('xen02') as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(700)
    with driver_lab.session(web.lab, web.host('xen02')) as api:
        api.pool.recover_slaves()
    web.pass_time(700)
    with driver_lab.session(web.lab, web.host('xen02')) as api:
        api.host.destroy(api.host.get_by_uuid(lonely.uuid))
    world.heal()
    web.pass_time(60)  # what the forgotten host leaves is collected
    web.settle()


def test_an_old_master_that_returns(sit: Sit) -> None:
    """The copy that was promoted has no stamp, and most members follow it."""
    web = sit(THREE)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    taken_over(web)
    web.lab.faults.executed.clear()

    told = web.audit()
    early = web('aggregate', 'add', 'host', 'web', 'xen01')
    judged = web.findings('aggregate', 'check', 'web', 'xen01')
    fixed = web.audit('--fix')
    shown = web.shown()
    again = web.audit()
    late = web.findings('aggregate', 'check', 'web', 'xen01')
    refused = web('aggregate', 'add', 'host', 'web', 'xen01')

    assert {'owner', 'master'} <= {one['check'] for one in told}
    assert early.status == refused.status == 3
    [disputed] = [one for one in judged if one['severity'] == 'fail']
    assert "'xen01' and 'xen02' both are masters" in disputed['message']
    assert disputed['remedy'] == 'xenpool aggregate audit web'
    assert 'could not be put back' not in str(fixed)
    assert shown['master'] == 'xen02'
    assert sorted(shown['hosts']) == ['xen02', 'xen03']
    with driver_lab.session(web.lab, web.host('xen02')) as api:
        [pool] = api.pool.get_all_records().values()
    assert shown['uuid'] in pool['other_config'].values()
    assert {one['severity'] for one in again} <= {'warn'}
    [worst] = [
        one
        for one in late
        if one['predicts'] == ['JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS']
    ]
    assert 'another copy of this pool' in worst['message']
    assert worst['remedy'].startswith('install anew xen01')
    assert 'pool.join' not in str(web.lab.calls())


KEEPS = {
    'xen01': 'on xen02: xe pool-emergency-reset-master master-address=',
    'xen02': 'switch off xen01, then: xenpool aggregate audit web --fix',
}
"""Which of two masters stays -> what lets the other one give way."""


def test_two_masters_of_two_hosts(sit: Sit) -> None:
    """As many follow the one as the other: a person has to choose."""
    web = sit(THREE.replace(', xen03', ''))
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    taken_over(web)
    web.lab.faults.executed.clear()

    [told] = [one for one in web.audit() if one['severity'] == 'fail']
    judged = web('aggregate', 'check', 'web', 'xen02')
    added = web('aggregate', 'add', 'host', 'web', 'xen02')

    assert told['check'] == 'identity'
    assert 'both claim the pool' in told['message']
    for kept, lost in (('xen01', 'xen02'), ('xen02', 'xen01')):
        assert f"if '{kept}' " in told['message']
        assert f"what was changed on '{lost}'" in told['message']
    first, way, last = told['remedy'].partition(
        ', or, if xen02 shall be the master: '
    )
    assert way
    assert first == KEEPS['xen01'] + web.machine('xen01').address
    assert last == KEEPS['xen02']
    assert judged.status == added.status == 3
    assert "'xen01' and 'xen02' both are masters" in added.err
    assert 'pool.join' not in str(web.lab.calls())
    web.kill('xen01')
    web.done('aggregate', 'audit', 'web', '--fix')
    assert web.shown()['master'] == 'xen02'
    assert web.shown()['hosts'] == ['xen02']


def test_two_hosts_by_hand_and_the_old_one_returns(sit: Sit) -> None:
    """It comes back as a master; --fix has followed the new one meanwhile."""
    web = sit(THREE.replace(', xen03', ''))
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen01')
    with web.local('xen02') as api:
        api.pool.emergency_transition_to_master()
    web.pass_time(120)
    web('aggregate', 'audit', 'web', '--fix')

    mishaps.power_on(web.machine('xen01'))
    web.pass_time(300)
    web.settle()
    told = web.audit()

    assert web.shown()['master'] == 'xen02'
    assert told == [], told
    assert web.machine('xen01').role == ('slave', web.machine('xen02').address)


def test_a_forgotten_host_that_returns(sit: Sit) -> None:
    """It names our master, which does not know it: no other pool's member."""
    web = sit(THREE)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.kill('xen03')
    web.pass_time(900)
    web.done(
        *('aggregate', 'remove', 'host', 'web', 'xen03', '--forget', '--yes')
    )
    mishaps.power_on(web.machine('xen03'))
    web.lab.clock.advance(100)
    web.lab.world.wait_for(lambda: web.machine('xen03').process is not None)

    deadline = time.monotonic() + 20
    while True:  # its toolstack dies and starts again and again
        judged = web.findings('aggregate', 'check', 'web', 'xen03')
        if 'membership' in {one['check'] for one in judged}:
            break
        assert time.monotonic() < deadline, judged
    [told] = judged

    assert told['severity'] == 'fail'
    assert 'takes itself for a member of this very pool' in told['message']
    assert 'another pool' not in told['message']
    assert told['remedy'].startswith('install anew xen03')


TWO_POOLS = """
pools:
  - name: web
    hosts:
      - name: xen01
        set: {host: {name_label: dom-a}}
      - name: xen02
        set: {host: {name_label: dom-b}}
  - name: db
    hosts: [xen03, xen04]
"""


def test_names_that_commands_take(sit: Sit) -> None:
    """XAPI's names and ours differ: both are shown, ours are typed."""
    web = sit(TWO_POOLS)
    web.done('aggregate', 'adopt', 'web', '--from', 'xen01')
    web.done('aggregate', 'adopt', 'db', '--from', 'xen03')

    [foreign] = [
        one
        for one in web.findings('aggregate', 'check', 'web', 'xen04')
        if one['severity'] == 'fail'
    ]
    with driver_lab.session(web.lab, web.lab.hosts[0]) as api:
        api.host.disable(api.host.get_by_uuid(web.machine('xen02').uuid))
    [idle] = web.audit()
    status = web('aggregate', 'audit', 'web').status
    web.kill('xen02')
    moved = web('aggregate', 'set', 'master', 'web', 'xen02')
    removed = web('aggregate', 'remove', 'host', 'web', 'xen02', '--yes')

    assert "of the aggregate 'db'" in foreign['message']
    assert 'xenpool aggregate remove host db xen04' in foreign['remedy']
    assert "'xen02 (dom-b in XAPI)' is disabled" in idle['message']
    assert (idle['severity'], status) == ('warn', 0)
    for result in (moved, removed):
        assert result.status == 3
        assert 'xen02 (dom-b in XAPI)' in result.err
        assert (
            'xenpool aggregate remove host web xen02 --forget --yes'
            in result.err
        )
