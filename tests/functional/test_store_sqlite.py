# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The SQLite file: opened by SQLite alone, once in a process, made whole."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap

import pytest

from tests.contract import store_kit
from xenpool_driver import conf, driver, exceptions, store
from xenpool_driver.cli import main
from xenpool_driver.compute import watcher
from xenpool_driver.store import files

HOSTS = """
[DEFAULT]
enabled_hosts = xen01, xen02
[xen01]
connection_url = https://192.0.2.1
connection_password = not-asked
[xen02]
connection_url = https://192.0.2.2
connection_password = not-asked
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where a database may be made."""
    return tmp_path / 'x.db'


@pytest.fixture
def conf_file(tmp_path: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A configuration of two hosts that nobody asks anything."""
    found = tmp_path / 'xenpool.conf'
    found.touch(mode=0o600)
    found.write_text(f"{HOSTS}\n[database]\nconnection = sqlite:///{path}\n")
    return found


def held_open(path: pathlib.Path) -> list[str]:
    """Return the names of this process's open files that begin so."""
    names = []
    for number in os.listdir('/proc/self/fd'):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return sorted(name for name in names if name.startswith(str(path)))


def names_in(path: pathlib.Path) -> list[str]:
    """Return the names of the aggregates, as any SQLite client reads them."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            'SELECT name FROM xenpool_aggregates ORDER BY id'
        ).fetchall()
        assert connection.execute('PRAGMA integrity_check').fetchall() == [
            ('ok',)
        ]
        return [name for (name,) in rows]
    finally:
        connection.close()


ANOTHER = """
import sys
from xenpool_driver import store
with store.Store(sys.argv[1]) as database:
    database.create_aggregate(sys.argv[2])
    print(*(row.name for row in database.list_aggregates()))
"""


def another(path: pathlib.Path, name: str) -> list[str]:
    """Let another process create one aggregate, list all, and end.

    A forked child would not do: it inherits what SQLite knows of locks.
    """
    done = subprocess.run(
        [sys.executable, '-c', ANOTHER, f"sqlite:///{path}", name],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_nothing_that_a_process_does_lets_go_of_its_locks(
    path: pathlib.Path,
) -> None:
    """Another one's end must not unlink the log under a running one."""
    url = f"sqlite:///{path}"
    with store.Store(url) as running:
        running.create_aggregate('first')
        for number, act in enumerate(
            (
                lambda: store.Store(url).close(),
                lambda: store.migrate(url),
                lambda: store.version(url),
                lambda: store.Store(url, busy_timeout=7.0).close(),
            )
        ):
            act()
            assert f"other-{number}" in another(path, f"other-{number}")
            running.create_aggregate(f"mine-{number}")
            assert not [
                name for name in held_open(path) if '(deleted)' in name
            ]
        assert len(names_in(path)) == 9
    assert held_open(path) == []
    assert len(names_in(path)) == 9


def test_many_drivers_share_one_store_and_one_set_of_logins(
    path: pathlib.Path, conf_file: pathlib.Path
) -> None:
    drivers = [
        driver.XenAPIPoolDriver(conf=conf.load([str(conf_file)]))
        for _ in range(3)
    ]
    watching = watcher.Watcher(
        conf.load([str(conf_file)]), drivers[0].site.store, print
    )
    assert watching._site.connections is drivers[0].site.connections
    watching.stop()
    first, *others = drivers
    first.site.store.create_aggregate('web')
    for other in others:
        assert other.site.store is first.site.store
        assert other.site.connections is first.site.connections
        assert other.site.store.get_aggregate('web').name == 'web'
    # One connection was enough for all of them.
    assert held_open(path).count(str(path)) == 1
    first.close()
    others[0].close()
    assert others[1].site.store.get_aggregate('web').name == 'web'
    others[1].close()
    assert held_open(path) == []


def test_two_names_of_one_file_are_one_database(
    tmp_path: pathlib.Path, path: pathlib.Path
) -> None:
    (tmp_path / 'link.db').symlink_to(path)
    with (
        store.Store(f"sqlite:///{path}") as one,
        store.Store(f"sqlite:///{tmp_path}/link.db") as other,
    ):
        one.create_aggregate('web')
        assert other.get_aggregate('web').name == 'web'
        assert one._database is other._database


def test_only_sqlite_ever_opens_the_file(
    path: pathlib.Path, conf_file: pathlib.Path
) -> None:
    """An audit hook hears of every file that Python opens."""
    code = textwrap.dedent(
        f"""
        import sys
        path = {str(path)!r}
        def hear(event, arguments):
            if event == 'open' and str(arguments[0]) == path:
                raise SystemExit(f'opened: {{arguments}}')
        sys.addaudithook(hear)
        from xenpool_driver import conf, driver, store
        from xenpool_driver.cli import main
        def run(*words):
            status = main.main(['--config-file', {str(conf_file)!r}, *words])
            assert status == 0, words
        run('aggregate', 'create', 'web')
        options = conf.load([{str(conf_file)!r}])
        plugin = driver.XenAPIPoolDriver(conf=options)
        plugin.init_host('xen01')
        run('aggregate', 'list')
        run('aggregate', 'show', 'web')
        run('db', 'upgrade')
        run('db', 'version')
        run('host', 'list')
        run('operation', 'list')
        run('aggregate', 'delete', 'web')
        plugin.close()
        """
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_file_that_is_empty_is_refused_by_name(path: pathlib.Path) -> None:
    path.touch()
    url = f"sqlite:///{path}"
    for act in (store.Store, store.migrate, store.version):
        with pytest.raises(
            exceptions.StoreError, match=f"{path} is an empty .*rm {path}"
        ):
            act(url)
    assert path.stat().st_size == 0
    assert [each.name for each in path.parent.glob('x.db*')] == ['x.db']


@pytest.mark.parametrize(
    'words',
    [
        ('aggregate', 'list'),
        ('aggregate', 'show', 'web'),
        ('aggregate', 'audit'),
        ('aggregate', 'recover', 'web'),
        ('aggregate', 'delete', 'web'),
        ('aggregate', 'add', 'host', 'web', 'xen01'),
        ('operation', 'list'),
    ],
)
def test_command_that_needs_a_database_creates_none(
    tmp_path: pathlib.Path,
    conf_file: pathlib.Path,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / 'no' / 'such' / 'x.db'
    conf_file.write_text(f"{HOSTS}[database]\nconnection = sqlite:///{gone}\n")
    status = main.main(['--config-file', str(conf_file), *words])
    out, err = capsys.readouterr()
    assert status == 1
    assert out == ''
    assert err == (
        f"xenpool: there is no database {gone}, and nothing was created: is "
        f"[database] connection right? The first aggregate makes it: xenpool "
        f"--config-file {conf_file} aggregate create pool1\n"
    )
    assert not (tmp_path / 'no').exists()
    create = ['--config-file', str(conf_file), 'aggregate', 'create', 'web']
    assert main.main(create) == 0
    assert names_in(gone) == ['web']


def test_hosts_are_listed_without_a_database(
    path: pathlib.Path,
    conf_file: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ('host', 'list', '-f', 'value', '-c', 'Host')
    assert main.main(['--config-file', str(conf_file), *words]) == 0
    out, err = capsys.readouterr()
    assert out == 'xen01\nxen02\n'
    assert f"there is no database {path}" in err
    assert main.main(['--config-file', str(conf_file), 'db', 'version']) == 0
    assert not path.exists()


def _die_making(path: str) -> None:
    files.make(path, lambda draft: os.kill(os.getpid(), signal.SIGKILL))


def test_killed_while_making_leaves_no_database(path: pathlib.Path) -> None:
    (status,) = store_kit.run(_die_making, (str(path),))
    assert status == -signal.SIGKILL
    assert not path.exists()
    with store.Store(f"sqlite:///{path}") as database:
        database.create_aggregate('web')
    left = sorted(each.name for each in path.parent.glob('x.db*'))
    assert left == ['x.db', 'x.db.lock']
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_whoever_comes_second_uses_the_database_of_the_first(
    path: pathlib.Path,
) -> None:
    def be_late(draft: str) -> None:
        pathlib.Path(draft).write_text('the second one')
        path.write_text('the first one')

    files.make(str(path), be_late)
    assert path.read_text() == 'the first one'
    assert [each.name for each in path.parent.glob('x.db*')] == ['x.db']


def test_file_that_vanishes_is_an_error_and_no_new_one(
    path: pathlib.Path,
) -> None:
    with store.Store(f"sqlite:///{path}") as database:
        database.create_aggregate('web')
        path.unlink()
        with pytest.raises(
            exceptions.StoreError, match=f"{path}: No such file"
        ):
            database.list_aggregates()
    assert not path.exists()


def test_file_that_is_put_in_place_of_another_is_used(
    tmp_path: pathlib.Path, path: pathlib.Path
) -> None:
    """Whatever went to the one without a name would be lost."""
    with store.Store(f"sqlite:///{tmp_path / 'copy.db'}") as copy:
        copy.create_aggregate('restored')
    with store.Store(f"sqlite:///{path}") as database:
        database.create_aggregate('web')
        for ending in ('-wal', '-shm'):
            path.with_name(path.name + ending).unlink()
        (tmp_path / 'copy.db').rename(path)
        database.create_aggregate('new')
        assert [row.name for row in database.list_aggregates()] == [
            'restored',
            'new',
        ]
    assert names_in(path) == ['restored', 'new']


def test_default_file_goes_with_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = conf.load([])
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'one'))
    with store.open_store(options) as one:
        one.create_aggregate('web')
        monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'two'))
        with store.open_store(options) as two:
            assert two.list_aggregates() == []


FULL_DISK = """
import pathlib, sys
from xenpool_driver import exceptions, store
place = pathlib.Path(sys.argv[1])
made = []
filler = place / 'filler'
with store.Store(f'sqlite:///{place}/x.db') as database:
    said = ''
    while not said:
        try:
            name = f'pool-{len(made)}'
            database.create_aggregate(name, {'k': 'v' * 255})
            made.append(name)
        except exceptions.StoreError as error:
            said = str(error)
    filler.unlink()
    assert [row.name for row in database.list_aggregates()] == made
    database.create_aggregate('goes-on')
print(said)
filler.write_bytes(b'0' * (1 << 14))
try:
    while True:
        with filler.open('ab') as stream:
            stream.write(b'0' * 4096)
except OSError:
    pass
for name in ('new.db', 'deep/new.db'):
    try:
        store.Store(f'sqlite:///{place}/{name}')
    except exceptions.StoreError as error:
        print(error)
"""


def test_full_disk_is_called_that(tmp_path: pathlib.Path) -> None:
    place = tmp_path / 'small'
    place.mkdir()
    (tmp_path / 'fill.py').write_text(FULL_DISK)
    mount = f"mount -t tmpfs -o size=640k none {place}"
    private = ['unshare', '--mount', 'sh', '-c']
    if subprocess.run([*private, mount], capture_output=True).returncode:
        pytest.skip('a small file system needs the right to mount one')
    run = f"dd if=/dev/zero of={place}/filler bs=1k count=128 status=none"
    done = subprocess.run(
        [
            *private,
            f"{mount} && {run} && {sys.executable} {tmp_path}/fill.py {place}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written, *new = done.stdout.splitlines()
    assert written.startswith(f"database {place}/x.db: the disk is full")
    assert f"df -h {place}" in written
    assert len(new) == 2
    for line in new:
        assert 'the disk is full' in line
        assert line.startswith(f"database {place}/")


def _fork_and_close(database: store.Store) -> None:
    database.list_aggregates()
    database.close()


@pytest.fixture
def opened(path: pathlib.Path) -> collections.abc.Iterator[store.Store]:
    """A store that is in use."""
    with store.Store(f"sqlite:///{path}") as database:
        yield database


def test_child_that_closes_what_it_inherited_harms_nobody(
    path: pathlib.Path, opened: store.Store
) -> None:
    opened.create_aggregate('before')
    store_kit.run(_fork_and_close, (opened,))
    another(path, 'other')
    opened.create_aggregate('after')
    assert not [name for name in held_open(path) if '(deleted)' in name]
    assert names_in(path) == ['before', 'other', 'after']
