# Licensed under the Apache License, Version 2.0; see LICENSE.
"""A pool's database: rows of the data model's classes, with generations.

One coordinator owns one database. Every change takes the next generation;
rows remember at which they were created and last changed, tables remember
deletions, so that :mod:`~xenpool_driver.simulator.events` can tell what
happened since a generation. Relations of the data model (``PBD.host`` and
``host.PBDs``) are kept on both sides.

Records hold Python values. Read them freely; change them through
:meth:`Database.set` and its kin only, which is what moves generations.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import random
import threading
import typing
import uuid as uuid_module

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import datamodel, errors

Record = dict[str, typing.Any]
Witness = collections.abc.Callable[[str, str, str, 'Row'], None]
Records = dict[str, dict[str, Record]]

DELETIONS_KEPT = 512
"""How many deletions a table remembers (xapi/database: 256 to 512)."""

ROOT_USER = {'short_name': 'root', 'fullname': 'superuser'}
"""The one row of the class user, which is of no use any more."""

VOLATILE = ('session', 'task')
"""The tables that a restart of the toolstack empties."""


class Row:
    """A row: its record, its generations, what was encoded of it.

    :ivar cache: encodings of the record, by name; emptied by every change.
    """

    __slots__ = ('record', 'created', 'modified', 'cache')

    def __init__(self, record: Record, generation: int) -> None:
        self.record = record
        self.created = generation
        self.modified = generation
        self.cache: dict[str, typing.Any] = {}


class Table:
    """The rows of one class.

    :ivar modified: the generation of the table's last change.
    :ivar deleted: (generation created, generation deleted, ref).
    """

    def __init__(self, cls: str) -> None:
        self.cls = cls
        self.rows: dict[str, Row] = {}
        self.by_uuid: dict[str, str] = {}
        self.modified = 0
        self.deleted: collections.deque[tuple[int, int, str]] = (
            collections.deque(maxlen=DELETIONS_KEPT)
        )
        self._order: tuple[str, ...] | None = None

    def order(self) -> tuple[str, ...]:
        """The references in XAPI's order: descending (recorded)."""
        order = self._order
        if order is None:
            order = self._order = tuple(sorted(self.rows, reverse=True))
        return order

    def add(self, ref: str, row: Row) -> None:
        """Add ``row``; the caller moves the generation."""
        self.rows[ref] = row
        self._order = None
        if row.record.get('uuid'):
            self.by_uuid[row.record['uuid']] = ref

    def remove(self, ref: str) -> Row:
        """Take the row of ``ref`` out; the caller moves the generation."""
        row = self.rows.pop(ref)
        self._order = None
        uuid = row.record.get('uuid')
        if uuid and self.by_uuid.get(uuid) == ref:
            del self.by_uuid[uuid]
        return row


class _Link(typing.NamedTuple):
    """One side of a relation: what a change of ``field`` does elsewhere."""

    field: str
    other: str
    back: str
    many: bool


def _links(model: datamodel.DataModel) -> dict[str, list[_Link]]:
    """Return, by class, the fields whose change another table must see."""
    links: dict[str, list[_Link]] = {}
    for relation in model.relations:
        for cls, field, other, back in (
            (relation.cls, relation.field, relation.other, relation.back),
            (relation.other, relation.back, relation.cls, relation.field),
        ):
            link = _link(model, cls, field, other, back)
            if link is not None:
                links.setdefault(cls, []).append(link)
    return links


def _link(
    model: datamodel.DataModel, cls: str, field: str, other: str, back: str
) -> _Link | None:
    """Return how ``cls.field`` is mirrored, None when it is not."""
    if cls not in model.classes or other not in model.classes:
        return None
    here = model.classes[cls].fields.get(field)
    there = model.classes[other].fields.get(back)
    if here is None or there is None or there.type.kind != 'set':
        return None
    target = here.type.of if here.type.kind == 'set' else here.type
    if target is None or target.kind != 'ref' or target.name != other:
        return None
    return _Link(field, other, back, here.type.kind == 'set')


def _same(old: typing.Any, new: typing.Any) -> bool:
    """Tell whether two values are stored alike; maps keep their order."""
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old.items()) == list(new.items())
    return bool(old == new)


def _targets(value: typing.Any) -> list[str]:
    """Return the references that a field of one or many holds."""
    return value if isinstance(value, list) else [value]


class Database:
    """The database of one pool.

    :param clock: the simulated time, for :meth:`wait`.
    :param rng: the seeded source of references and uuids.
    :ivar side: what the toolstack remembers beside the database (owners of
        tasks, subscriptions); a restart forgets it.
    :ivar witness: is told of each change (add, mod or del) while the lock is
        held: what, class, reference, row.
    """

    def __init__(self, clock: clock_module.Clock, rng: random.Random) -> None:
        self.clock = clock
        self.rng = rng
        self.model = datamodel.load()
        self.lock = threading.RLock()
        self.generation = 1
        self.side: dict[str, typing.Any] = {}
        self.witness: Witness | None = None
        self._changed = threading.Condition(self.lock)
        self._links = _links(self.model)
        self._tables = {
            name: Table(name)
            for name, cls in self.model.classes.items()
            if cls.in_database or name == 'message'
        }

    # -- reading ---------------------------------------------------------

    def table(self, cls: str) -> Table:
        """Return the table of ``cls``.

        :raises ApiError: INTERNAL_ERROR as XAPI says it, for a class
            without one.
        """
        try:
            return self._tables[cls]
        except KeyError:
            raise errors.ApiError(
                'INTERNAL_ERROR', 'missing table', cls, ''
            ) from None

    def tables(self) -> collections.abc.Iterable[Table]:
        """Return all tables."""
        return self._tables.values()

    def row(self, cls: str, ref: str) -> Row:
        """Return the row of ``ref``.

        :raises ApiError: HANDLE_INVALID when there is none.
        """
        row = self.table(cls).rows.get(ref)
        if row is None:
            raise errors.handle_invalid(cls, ref)
        return row

    def get(self, cls: str, ref: str) -> Record:
        """Return the live record of ``ref``: look, do not touch.

        :raises ApiError: HANDLE_INVALID when there is none.
        """
        return self.row(cls, ref).record

    def find(self, cls: str, ref: str) -> Record | None:
        """Return the live record of ``ref``, None when there is none."""
        row = self.table(cls).rows.get(ref)
        return None if row is None else row.record

    def all(self, cls: str) -> dict[str, Record]:
        """Return ``{ref: live record}`` in XAPI's order."""
        with self.lock:
            table = self.table(cls)
            return {ref: table.rows[ref].record for ref in table.order()}

    def refs(self, cls: str) -> list[str]:
        """Return the references of all rows of ``cls``, in XAPI's order."""
        with self.lock:
            return list(self.table(cls).order())

    def by_uuid(self, cls: str, uuid: str) -> str:
        """Return the reference of the row with ``uuid``.

        :raises ApiError: UUID_INVALID when there is none.
        """
        try:
            return self.table(cls).by_uuid[uuid]
        except KeyError:
            raise errors.uuid_invalid(cls, uuid) from None

    def exists(self, ref: str, cls: str | None = None) -> bool:
        """Return whether ``ref`` is a row (of ``cls``, when given)."""
        if cls is not None:
            return ref in self.table(cls).rows
        return any(ref in table.rows for table in self._tables.values())

    def class_of(self, ref: str) -> str | None:
        """Return the class of ``ref``, None when it is no row."""
        for table in self._tables.values():
            if ref in table.rows:
                return table.cls
        return None

    # -- changing --------------------------------------------------------

    def new_uuid(self) -> str:
        """Return a uuid that the seed decides."""
        return str(uuid_module.UUID(int=self.rng.getrandbits(128)))

    def new_ref(self) -> str:
        """Return a reference that the seed decides."""
        return f'OpaqueRef:{self.new_uuid()}'

    def create(
        self,
        cls: str,
        fields: collections.abc.Mapping[str, typing.Any],
        ref: str | None = None,
        uuid: str | None = None,
    ) -> str:
        """Add a row; fields that are not given get their defaults.

        :returns: its reference.
        :raises ValueError: for a field that the class does not have, and
            for a reference that is a row already.
        """
        known = self.model.classes[cls].fields
        unknown = set(fields) - set(known)
        if unknown:
            raise ValueError(f'{cls} has no field {sorted(unknown)[0]!r}')
        record = {
            name: fields[name]
            if name in fields
            else datamodel.default_of(field)
            for name, field in known.items()
        }
        if 'uuid' in known:
            record['uuid'] = uuid or record['uuid'] or self.new_uuid()
        with self.lock:
            ref = self.new_ref() if ref is None else ref
            table = self.table(cls)
            if ref in table.rows:
                raise ValueError(f'{cls} {ref} exists already')
            row = Row(record, self._bump(table))
            table.add(ref, row)
            self._tell('add', cls, ref, row)
            for link in self._links.get(cls, ()):
                for target in _targets(record[link.field]):
                    self._back_add(link, target, ref)
            return ref

    def set(self, cls: str, ref: str, **fields: typing.Any) -> None:
        """Change fields of a row; nothing happens when all are so already.

        :raises ApiError: HANDLE_INVALID when there is no such row.
        :raises ValueError: for a field that the class does not have.
        """
        with self.lock:
            row = self.row(cls, ref)
            changed = False
            for name, value in fields.items():
                if name not in row.record:
                    raise ValueError(f'{cls} has no field {name!r}')
                old = row.record[name]
                if _same(old, value):
                    continue
                changed = True
                row.record[name] = value
                self._relate(cls, ref, name, old, value)
                if name == 'uuid':
                    self._reindex(cls, ref, old, value)
            if changed:
                self._touch(cls, ref, row)

    def add_to_map(
        self, cls: str, ref: str, field: str, key: str, value: typing.Any
    ) -> None:
        """Add a key to a map field, in front as XAPI does.

        :raises ApiError: MAP_DUPLICATE_KEY, HANDLE_INVALID.
        """
        with self.lock:
            old = self.get(cls, ref)[field]
            if key in old:
                raise errors.map_duplicate_key(cls, field, ref, key)
            self.set(cls, ref, **{field: {key: value, **old}})

    def put_in_map(
        self, cls: str, ref: str, field: str, key: str, value: typing.Any
    ) -> None:
        """Set a key of a map field, whether it is there or not."""
        with self.lock:
            old = self.get(cls, ref)[field]
            if old.get(key) != value:
                self.set(cls, ref, **{field: {**old, key: value}})

    def remove_from_map(
        self, cls: str, ref: str, field: str, key: str
    ) -> None:
        """Remove a key from a map field; an absent one is no error."""
        with self.lock:
            old = self.get(cls, ref)[field]
            kept = {k: v for k, v in old.items() if k != key}
            self.set(cls, ref, **{field: kept})

    def add_to_set(
        self, cls: str, ref: str, field: str, value: typing.Any
    ) -> None:
        """Add a value to a set field, in front as XAPI does."""
        with self.lock:
            old = self.get(cls, ref)[field]
            if value not in old:
                self.set(cls, ref, **{field: [value, *old]})

    def remove_from_set(
        self, cls: str, ref: str, field: str, value: typing.Any
    ) -> None:
        """Remove a value from a set field; an absent one is no error."""
        with self.lock:
            old = self.get(cls, ref)[field]
            self.set(cls, ref, **{field: [v for v in old if v != value]})

    def touch(self, cls: str, ref: str) -> int:
        """Mark a row as changed without changing it.

        :returns: the generation of that mark.
        :raises ApiError: HANDLE_INVALID when there is no such row.
        """
        with self.lock:
            return self._touch(cls, ref, self.row(cls, ref))

    def delete(self, cls: str, ref: str) -> None:
        """Remove a row. References to it in other rows stay, dangling.

        :raises ApiError: HANDLE_INVALID when there is no such row.
        """
        with self.lock:
            row = self.row(cls, ref)
            table = self.table(cls)
            self._tell('del', cls, ref, row)
            table.remove(ref)
            table.deleted.append((row.created, self._bump(table), ref))
            for link in self._links.get(cls, ()):
                for target in _targets(row.record[link.field]):
                    self._back_remove(link, target, ref)

    def wait(self, generation: int, timeout: float) -> int:
        """Wait until the database is past ``generation``.

        :param timeout: at most so long, simulated seconds.
        :returns: the generation then.
        """
        deadline = self.clock.now() + timeout
        with self.lock:
            if self.generation > generation or timeout <= 0:
                return self.generation
            timer = self.clock.call_later(timeout, self.wake)
            try:
                while self.generation <= generation:
                    if self.clock.now() >= deadline or self.clock.stopped:
                        break
                    self._changed.wait(1.0)
            finally:
                timer.cancel()
            return self.generation

    def wake(self) -> None:
        """Let everybody in :meth:`wait` look again."""
        with self.lock:
            self._changed.notify_all()

    def tick(self) -> None:
        """Move the generation on although nothing changed."""
        with self.lock:
            self.generation += 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def transaction(self) -> collections.abc.Iterator[Database]:
        """Keep all others out for several changes that belong together."""
        with self.lock:
            yield self

    # -- whole databases -------------------------------------------------

    @classmethod
    def from_records(
        cls,
        records: collections.abc.Mapping[
            str,
            collections.abc.Mapping[
                str, collections.abc.Mapping[str, typing.Any]
            ],
        ],
        clock: clock_module.Clock,
        rng: random.Random,
    ) -> Database:
        """Return a database that holds ``records``.

        :param records: ``{class: {ref: record}}`` as ``XenAPI`` returns
            them: integers may be text.
        :raises ValueError: for a class that is not known and for a value
            that is not of its field's type.
        """
        database = cls(clock, rng)
        with database.lock:
            for name, rows in records.items():
                if rows and name not in database._tables:
                    raise ValueError(f'unknown class {name!r}')
                for ref, record in rows.items():
                    database._load(name, ref, record)
            if not database.table('user').rows:
                # Every XAPI has one, though no call lists it.
                database.create('user', ROOT_USER)
        return database

    def _load(
        self,
        name: str,
        ref: str,
        raw: collections.abc.Mapping[str, typing.Any],
    ) -> None:
        """Add one recorded row as it is; its other sides are recorded."""
        record = {}
        for field in self.model.classes[name].fields.values():
            if field.name not in raw:
                record[field.name] = datamodel.default_of(field)
                continue
            try:
                record[field.name] = parse(field.type, raw[field.name])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f'{name} {ref}: field {field.name}: {error}'
                ) from error
        table = self.table(name)
        table.add(ref, Row(record, self._bump(table)))

    def dump(self) -> Records:
        """Return all tables in the form that :meth:`from_records` takes."""
        with self.lock:
            return {
                name: {
                    ref: self.dump_record(name, table.rows[ref].record)
                    for ref in table.order()
                }
                for name, table in self._tables.items()
            }

    def dump_record(self, cls: str, record: Record) -> Record:
        """Return ``record`` as ``XenAPI`` returns it: integers as text."""
        fields = self.model.classes[cls].fields
        return {
            name: unparse(fields[name].type, value)
            for name, value in record.items()
        }

    # -- inside ----------------------------------------------------------

    def _bump(self, table: Table) -> int:
        self.generation += 1
        table.modified = self.generation
        self._changed.notify_all()
        return self.generation

    def _touch(self, cls: str, ref: str, row: Row) -> int:
        row.modified = self._bump(self.table(cls))
        row.cache = {}
        self._tell('mod', cls, ref, row)
        return row.modified

    def _tell(self, what: str, cls: str, ref: str, row: Row) -> None:
        if self.witness is not None:
            self.witness(what, cls, ref, row)

    def _reindex(self, cls: str, ref: str, old: str, new: str) -> None:
        table = self.table(cls)
        if table.by_uuid.get(old) == ref:
            del table.by_uuid[old]
        table.by_uuid[new] = ref

    def _relate(
        self,
        cls: str,
        ref: str,
        name: str,
        old: typing.Any,
        new: typing.Any,
    ) -> None:
        for link in self._links.get(cls, ()):
            if link.field != name or old == new:
                continue
            before, after = _targets(old), _targets(new)
            for target in before:
                if target not in after:
                    self._back_remove(link, target, ref)
            for target in after:
                if target not in before:
                    self._back_add(link, target, ref)

    def _back_add(self, link: _Link, target: str, ref: str) -> None:
        row = self.table(link.other).rows.get(target)
        if row is not None and ref not in row.record[link.back]:
            row.record[link.back] = [ref, *row.record[link.back]]
            self._touch(link.other, target, row)

    def _back_remove(self, link: _Link, target: str, ref: str) -> None:
        row = self.table(link.other).rows.get(target)
        if row is not None and ref in row.record[link.back]:
            row.record[link.back] = [
                item for item in row.record[link.back] if item != ref
            ]
            self._touch(link.other, target, row)


def parse(kind: datamodel.Type, value: typing.Any) -> typing.Any:
    """Return a recorded ``value`` as the Python value of type ``kind``.

    :raises ValueError: when it is none.
    """
    if kind.kind == 'int':
        return int(value)
    if kind.kind == 'float':
        return float(value)
    if kind.kind == 'bool':
        if not isinstance(value, bool):
            raise ValueError(f'{value!r} is no bool')
        return value
    if kind.kind == 'set' and kind.of is not None:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f'{value!r} is no set')
        return [parse(kind.of, item) for item in value]
    if kind.kind == 'map' and kind.of is not None and kind.key is not None:
        if not isinstance(value, collections.abc.Mapping):
            raise ValueError(f'{value!r} is no map')
        return {
            parse(kind.key, key): parse(kind.of, item)
            for key, item in value.items()
        }
    return str(value)


def unparse(kind: datamodel.Type, value: typing.Any) -> typing.Any:
    """Return the Python ``value`` as ``XenAPI`` returns it."""
    if kind.kind == 'int':
        return str(value)
    if kind.kind == 'set' and kind.of is not None:
        return [unparse(kind.of, item) for item in value]
    if kind.kind == 'map' and kind.of is not None:
        return {
            str(key): unparse(kind.of, item) for key, item in value.items()
        }
    return value
