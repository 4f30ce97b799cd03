# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The parts of the store that need no database."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys

import alembic.config
import alembic.script
import hypothesis
import hypothesis.strategies
import pytest

from xenpool_driver import conf, exceptions, store
from xenpool_driver.store import location, migration, schema, texts

SECRET = 'p%40ss:word/x'
"""A password as it is written in a URL; it reads ``p@ss:word/x``."""


def test_import_is_cheap() -> None:
    """The command line starts without SQLAlchemy and alembic."""
    code = (
        'import sys, xenpool_driver.store as s; '
        's.LeaseKeeper, s.Changes, s.Aggregate; '
        'bad = {"sqlalchemy", "alembic", "tenacity"} & set(sys.modules); '
        'sys.exit(f"imported: {bad}" if bad else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_opening_a_current_database_needs_no_alembic(
    tmp_path: pathlib.Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    store.Store(url).close()
    code = (
        'import sys, xenpool_driver.store as s; '
        f's.Store({url!r}).list_aggregates(); '
        'sys.exit("alembic" in sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_public_names_are_there() -> None:
    for name in store.__all__:
        assert getattr(store, name)
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = store.no_such_name


def test_revisions_are_the_files() -> None:
    """The list is kept by hand, so that alembic need not be asked."""
    config = alembic.config.Config()
    here = pathlib.Path(migration.__file__).with_name('migrations')
    config.set_main_option('script_location', os.fspath(here))
    script = alembic.script.ScriptDirectory.from_config(config)
    written = [entry.revision for entry in script.walk_revisions()]
    assert tuple(reversed(written)) == schema.REVISIONS
    assert script.get_current_head() == schema.REVISION


class TestLocation:
    def test_default_is_the_state_directory(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path))
        expected = str(tmp_path / 'xenpool' / 'xenpool.db')
        assert location.parse(None).database == expected
        assert location.parse('').database == expected

    @pytest.mark.parametrize('value', [None, '', 'not/absolute'])
    def test_default_without_a_usable_state_directory(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path,
        value: str | None,
    ) -> None:
        monkeypatch.setenv('HOME', str(tmp_path))
        if value is None:
            monkeypatch.delenv('XDG_STATE_HOME')
        else:
            monkeypatch.setenv('XDG_STATE_HOME', value)
        assert location.parse(None).database == str(
            tmp_path / '.local' / 'state' / 'xenpool' / 'xenpool.db'
        )

    @pytest.mark.parametrize(
        ('text', 'driver'),
        [
            ('postgres://u@h/d', 'postgresql+psycopg'),
            ('postgresql://u@h/d', 'postgresql+psycopg'),
            ('postgresql+psycopg://u@h/d', 'postgresql+psycopg'),
            ('mysql://u@h/d', 'mysql+pymysql'),
            ('mariadb://u@h/d', 'mysql+pymysql'),
            ('mariadb+pymysql://u@h/d', 'mysql+pymysql'),
            ('sqlite:///x.db', 'sqlite+pysqlite'),
        ],
    )
    def test_driver(self, text: str, driver: str) -> None:
        assert location.parse(text).drivername == driver

    def test_relative_path_survives_a_change_of_directory(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found = location.parse('sqlite:///x.db').database
        assert found == str(tmp_path / 'x.db')

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            (f"postgresql:/u:{SECRET}@h/d", 'is no SQLAlchemy URL'),
            (f"u:{SECRET}@h/d", 'is no SQLAlchemy URL'),
            ('postgresql://h:port/d', 'is no SQLAlchemy URL'),
            (f"oracle://u:{SECRET}@h/d", "'oracle' is not supported"),
            (f"nonsense://u:{SECRET}@h/d", "'nonsense' is not supported"),
            (f"mysql+mysqldb://u:{SECRET}@h/d", "'mysql.mysqldb' is not"),
            (f"postgresql+asyncpg://u:{SECRET}@h/d", "asyncpg' is not"),
            (f"postgresql+psycopg2://u:{SECRET}@h/d", "psycopg2' is not"),
            (f"mysql://u:{SECRET}@h:1/", 'names no database'),
            ('sqlite://', 'must name a plain file'),
            ('sqlite:///:memory:', 'must name a plain file'),
            ('sqlite:///file:x?mode=memory&uri=true', 'a plain file'),
        ],
    )
    def test_wrong_url_is_one_line_without_its_password(
        self, text: str, message: str
    ) -> None:
        for action in (store.Store, store.migrate, store.version):
            with pytest.raises(
                exceptions.ConfigurationError, match=message
            ) as caught:
                action(text)
            said = str(caught.value)
            assert '[database] connection' in said
            assert '\n' not in said
            assert 'word' not in said
            assert caught.value.__cause__ is None

    def test_an_option_that_the_driver_does_not_know(self) -> None:
        with pytest.raises(
            exceptions.ConfigurationError, match="with 'foo'"
        ) as caught:
            store.Store(f"mysql://u:{SECRET}@127.0.0.1:1/d?foo={SECRET}")
        assert SECRET not in str(caught.value)

    def test_shown_hides_user_password_and_query(self) -> None:
        url = location.parse(
            f"postgresql://me:{SECRET}@db.example:5433/x?password=other"
        )
        assert location.shown(url) == 'postgresql://db.example:5433/x'
        assert set(location.secrets(url)) == {
            'p@ss:word/x',
            'p%40ss%3Aword%2Fx',
            'other',
        }
        assert location.secrets(location.parse(None)) == []


class TestTexts:
    @hypothesis.given(hypothesis.strategies.text())
    def test_prose_can_always_be_stored(self, text: str) -> None:
        stored = texts.prose(text)
        assert '\0' not in stored
        stored.encode()
        assert texts.prose(stored) == stored

    @hypothesis.given(
        hypothesis.strategies.text(
            hypothesis.strategies.characters(codec='utf-8'), max_size=300
        )
    )
    def test_name_is_taken_as_it_is_or_refused(self, text: str) -> None:
        try:
            assert texts.aggregate_name(text) == text
        except exceptions.InvalidText as error:
            assert '\n' not in str(error)
            assert len(str(error)) < 2000
        else:
            assert 1 <= len(text) <= 255
            assert text == text.strip()


class TestChanges:
    def test_a_single_host_is_no_sequence_of_hosts(self) -> None:
        with pytest.raises(TypeError, match="'xen01'"):
            store.Changes(add_hosts='xen01')
        with pytest.raises(TypeError, match="'xen01'"):
            store.Changes(remove_hosts='xen01')

    def test_is_false_when_it_changes_nothing(self) -> None:
        assert not store.Changes()
        assert store.Changes({'a': None})
        assert store.Changes(dismiss=True)
        assert store.Changes(name='')

    def test_pickles(self) -> None:
        changes = store.Changes({'a': None}, ('x',))
        assert pickle.loads(pickle.dumps(changes)) == changes


def test_open_store_reads_the_options(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'deep' / 'x.db'
    file = tmp_path / 'xenpool.conf'
    file.write_text(f"[database]\nconnection = sqlite:///{path}\n")
    options = conf.load([str(file)])
    with store.open_store(options) as database:
        database.create_aggregate('pool-a')
    assert path.exists()
    assert store.version(options) == store.migrate(options)
