# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Worlds from YAML and from recorded pools."""

from __future__ import annotations

import json
import pathlib
import textwrap

import pytest

from tests import manual_world
from tests.contract import doors
from xenpool_driver.simulator import (
    build,
    database,
    errors,
    join,
    machine,
    profiles,
    records_dir,
    topology,
)

WHOLE = """
    password: sesame
    pools:
      - name: production
        hosts:
          - {name: xen01, address: 127.30.7.21,
             licence: {restrict_pool_size: "true"}}
          - {name: xen02, cpu_vendor: AuthenticAMD, memory_gib: 8}
          - {name: xen03, power: off, clock_offset: 30}
        srs:
          - {name: nfs1, type: nfs, shared: true, size_gib: 500,
             device_config: {server: 10.0.0.1}}
          - {name: scratch, type: ext, host: xen02}
        networks: [{name: internal, bridge: isolated0}]
        vlans: [{device: eth1, tag: 42, network: storage}]
        bonds: [[eth0, eth1]]
        vms:
          - {name: web1, host: xen02, power_state: Running,
             disks: [{sr: nfs1, size_gib: 8}], networks: [internal]}
        set: {name_description: all of it}
        records:
          - {class: SR, name_label: nfs1, set: {tags: [gold]}}
          - {class: Certificate, create: true,
             set: {type: ca, name: corp.pem}}
    hosts:
      - name: xen04
        version_profile: xcp-ng-8.2
        password: other
        set: {host: {tags: [spare]}, pool: {tls_verification_enabled: false}}
      - xen05
"""


def load(tmp_path: pathlib.Path, text: str) -> manual_world.ManualWorld:
    path = tmp_path / 'topology.yaml'
    path.write_text(textwrap.dedent(text))
    where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
    topology.load(where, path, build.addresses('127.30.7.1'), 'xenroot')
    return where


def db_of(target: machine.Machine) -> database.Database:
    assert target.db is not None
    return target.db


class TestYaml:
    def test_hosts_get_the_addresses_names_and_passwords_they_ask_for(
        self, tmp_path: pathlib.Path
    ) -> None:
        where = load(tmp_path, WHOLE)
        assert [(m.name, m.address, m.password) for m in where.machines] == [
            ('xen01', '127.30.7.21', 'sesame'),
            ('xen02', '127.30.7.1', 'sesame'),
            ('xen03', '127.30.7.2', 'sesame'),
            ('xen04', '127.30.7.3', 'other'),
            ('xen05', '127.30.7.4', 'sesame'),
        ]

    def test_a_pool_has_its_members_and_a_dead_one_is_off(
        self, tmp_path: pathlib.Path
    ) -> None:
        where = load(tmp_path, WHOLE)
        one, two, three = where.machines[:3]
        assert len(db_of(one).refs('host')) == 3
        assert two.role == ('slave', one.address)
        assert not three.powered
        pool = next(iter(db_of(one).all('pool').values()))
        assert pool['name_label'] == 'production'
        assert pool['name_description'] == 'all of it'

    def test_storage_hangs_where_it_should(
        self, tmp_path: pathlib.Path
    ) -> None:
        db = db_of(load(tmp_path, WHOLE).machines[0])
        srs = {sr['name_label']: sr for sr in db.all('SR').values()}
        assert len(srs['nfs1']['PBDs']) == 3
        assert len(srs['scratch']['PBDs']) == 1
        assert srs['nfs1']['tags'] == ['gold']
        assert len(srs['nfs1']['VDIs']) == 1

    def test_members_copy_bonds_and_vlans_of_the_coordinator(
        self, tmp_path: pathlib.Path
    ) -> None:
        db = db_of(load(tmp_path, WHOLE).machines[0])
        assert len(db.refs('Bond')) == 3
        assert len(db.refs('VLAN')) == 3
        management = [p for p in db.all('PIF').values() if p['management']]
        assert {p['device'] for p in management} == {'bond0'}
        assert len(management) == 3

    def test_fields_of_single_hosts_can_be_set(
        self, tmp_path: pathlib.Path
    ) -> None:
        target = load(tmp_path, WHOLE).machines[3]
        assert target.profile is profiles.get('xcp-ng-8.2')
        db = db_of(target)
        assert next(iter(db.all('host').values()))['tags'] == ['spare']

    def test_users_log_in_with_limited_roles(
        self, tmp_path: pathlib.Path
    ) -> None:
        target = load(
            tmp_path,
            """
            pools:
              - hosts: [xen01]
                users: [{name: auditor, password: pw, roles: read-only}]
            """,
        ).machines[0]
        login = 'session.login_with_password'
        session = doors.ask(target, login, 'auditor', 'pw')
        (pool,) = doors.ask(target, 'pool.get_all', session)
        with pytest.raises(errors.ApiError, match='RBAC_PERMISSION_DENIED'):
            doors.ask(target, 'pool.set_name_label', session, pool, 'x')

    def test_a_number_of_hosts_is_a_topology(
        self, tmp_path: pathlib.Path
    ) -> None:
        assert len(load(tmp_path, 'hosts: 4').machines) == 4

    @pytest.mark.parametrize(
        ('text', 'offender'),
        [
            ('', 'without hosts'),
            ('hosts: [', 'topology.yaml'),
            ('host: 3', "'host'"),
            ('hosts: [{nam: xen01}]', "'nam'"),
            ('hosts: [{name: a}, {name: a}]', 'a is taken'),
            ('hosts: [{name: a, version_profile: x}]', "'x'"),
            ('hosts: [{name: a, set: {SR: {tags: []}}}]', "'SR'"),
            ('hosts: [{name: a, set: {host: {colour: red}}}]', "'colour'"),
            ('hosts: [{name: a, set: {host: {enabled: 5}}}]', 'no bool'),
            ('hosts: [{name: a, address: 10.0.0.1}]', 'host a: address'),
            ('hosts: [{name: a, address: 10.0.0.1}]', '127.0.0.0/8'),
            ('hosts: [{name: a, address: here}]', 'no IPv4 address'),
            ('hosts: [{name: a, address: "::1"}]', 'no IPv4 address'),
            ('pools: [{hosts: [a], ha: true}]', 'shared: true'),
            ('pools: [{name: p}]', "'p'"),
            ('pools: [{hosts: [a], vlans: [{device: x, tag: 1}]}]', "'x'"),
            ('pools: [{hosts: [a], srs: [{name: s}]}]', "'s'"),
            ('pools: [{hosts: [a], records: [{class: X}]}]', "'X'"),
            ('pools: [{hosts: [a], users: [{name: u}]}]', "'password'"),
            (
                'pools: [{hosts: [a], users:'
                ' [{name: u, password: p, roles: boss}]}]',
                "'boss'",
            ),
        ],
    )
    def test_nonsense_is_refused_by_name(
        self, tmp_path: pathlib.Path, text: str, offender: str
    ) -> None:
        with pytest.raises(ValueError, match='topology.yaml') as caught:
            load(tmp_path, text)
        assert offender in str(caught.value)

    def test_ha_has_a_state_file(self, tmp_path: pathlib.Path) -> None:
        where = load(
            tmp_path,
            'pools: [{hosts: [a, {name: b, power: off}], ha: true,'
            ' srs: [{name: nfs1, shared: true}]}]',
        )
        one = where.machines[0]
        (pool,) = db_of(one).all('pool').values()
        assert pool['ha_enabled']
        assert 'ha_disable' in pool['allowed_operations']
        (statefile,) = pool['ha_statefiles']
        disk = db_of(one).get('VDI', statefile)
        assert disk['type'] == 'ha_statefile'
        assert db_of(one).get('SR', disk['SR'])['name_label'] == 'nfs1'
        assert all(target.ha_armed for target in where.machines)


class TestRecords:
    def place(self, directory: pathlib.Path) -> manual_world.ManualWorld:
        where = manual_world.ManualWorld(manual_world.ManualClock(), seed=1)
        free = build.addresses('127.30.7.1')
        records_dir.load_dir(where, directory, free, 'xenroot')
        return where

    def test_each_file_is_a_pool_with_addresses_of_ours(
        self, recordings: pathlib.Path
    ) -> None:
        where = self.place(recordings / 'pools')
        assert [m.address for m in where.machines] == [
            f'127.30.7.{number}' for number in range(1, 5)
        ]
        alone, master, *members = where.machines
        assert len(db_of(alone).refs('host')) == 1
        assert {m.role for m in members} == {('slave', master.address)}
        hosts = db_of(master).all('host').values()
        ours = {m.address for m in (master, *members)}
        assert {host['address'] for host in hosts} == ours

    def test_all_else_stays_as_recorded(
        self, recordings: pathlib.Path
    ) -> None:
        where = self.place(recordings / 'pools')
        path = recordings / 'pools' / 'fresh-single-host.json'
        recorded = json.loads(path.read_text())
        ours = records_dir.dump(where.machines[0])
        moved = {'address', 'IP', 'location'}
        for cls, rows in records_dir.clean(recorded).items():
            for ref, row in rows.items():
                for field, value in row.items():
                    if field not in moved:
                        assert ours[cls][ref][field] == value, (cls, field)

    def test_recorded_hosts_join_recorded_pools(
        self, recordings: pathlib.Path
    ) -> None:
        where = self.place(recordings / 'pools')
        alone, master = where.machines[:2]
        call = manual_world.Call(alone)
        join.join(call, master.address, 'root', 'xenroot')
        where.clock.advance(40)
        assert len(db_of(master).refs('host')) == 4
        assert alone.role == ('slave', master.address)

    def test_historic_pools_load(self, records_dir: pathlib.Path) -> None:
        where = self.place(records_dir)
        assert len(where.machines) >= 3
        assert max(len(db_of(m).refs('VM')) for m in where.machines) > 50

    @pytest.mark.parametrize(
        ('content', 'offender'),
        [
            ('{', 'bad.json'),
            ('[]', 'not an object'),
            ('{"host": {"r": {}}}', '0 pool records'),
            (
                '{"host": {"r": {"uuid": "u"}}, "pool": {"p": {"master":'
                ' "x"}}}',
                'is no host',
            ),
            (
                '{"host": {"r": {"enabled": 5}}, "pool": {"p": {"master":'
                ' "r"}}}',
                'enabled',
            ),
            ('{}', 'no JSON file with hosts'),
        ],
    )
    def test_malformed_files_are_refused_by_name(
        self, tmp_path: pathlib.Path, content: str, offender: str
    ) -> None:
        (tmp_path / 'bad.json').write_text(content)
        with pytest.raises(records_dir.BadRecords) as caught:
            self.place(tmp_path)
        assert offender in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('hosts: 2000000', 'at most 1000'),
        ('hosts: [{name: x1, nics: many}]', "host x1: nics: 'many'"),
    ],
)
def test_a_wrong_count_is_named(
    tmp_path: pathlib.Path, text: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load(tmp_path, text)


def test_too_few_addresses_are_told() -> None:
    free = build.addresses('127.255.255.254')
    assert next(free) == '127.255.255.254'
    with pytest.raises(ValueError, match='too few loopback addresses'):
        next(free)
