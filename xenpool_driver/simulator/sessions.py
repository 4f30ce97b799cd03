# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Sessions: who may log in, who is who, and when a session ends.

Ordinary sessions are rows of the pool's database, gone when the coordinator's
toolstack restarts. Local sessions (slave_local_login*) live in the memory of
one machine's toolstack and need no database.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import hashlib
import uuid

from xenpool_driver.simulator import clock as clock_module
from xenpool_driver.simulator import (
    database,
    errors,
    rbac,
    registry,
    tasks,
)

IDLE = 24 * 3600.0
"""Simulated seconds after which an idle session is destroyed."""

REFRESH = 600.0
"""Simulated seconds between two updates of last_active."""

CAP_ORIGINATOR, CAP_USER = 500, 500
CAP_ROOT, CAP_POOL = 400, 400

ROOT = 'root'
REASON_DENIED = 'Authentication failure'
REASON_UNKNOWN = 'User not known to the underlying authentication module'
REASON_FOREIGN = 'Pool credentials invalid'


@dataclasses.dataclass(frozen=True)
class Subject:
    """A user of an external directory, for sessions with limited roles."""

    password: str = dataclasses.field(repr=False)
    roles: tuple[str, ...]


def add_subject(
    db: database.Database,
    user: str,
    password: str,
    roles: collections.abc.Iterable[str],
) -> None:
    """Let ``user`` log in with ``roles`` (such as ``read-only``).

    :raises ValueError: for a role that does not exist.
    """
    for role in (roles := tuple(roles)):
        if role not in rbac.ROLES:
            known = ', '.join(rbac.ROLES)
            raise ValueError(f'no role {role!r}; there are: {known}')
    subjects = db.side.setdefault('subjects', {})
    subjects[user] = Subject(password, roles)


def track_id(session: str) -> str:
    """Return the name under which XAPI's logs and errors know a session."""
    digest = hashlib.md5(session.encode(), usedforsecurity=False)
    return f'trackid={digest.hexdigest()}'


def create(
    db: database.Database,
    *,
    host: str = errors.NULL,
    pool: bool = False,
    user: str = '',
    originator: str = '',
    roles: tuple[str, ...] | None = None,
) -> str:
    """Open a session.

    :param roles: limit it to these; None for the local superuser.
    :returns: its reference, which is its secret too.
    """
    now = db.clock.iso()
    fields = {
        'this_host': host,
        'this_user': errors.NULL,
        'last_active': now,
        'validation_time': now,
        'pool': pool,
        'is_local_superuser': roles is None,
        'auth_user_name': user,
        'auth_user_sid': '' if roles is None else f'S-{track_id(user)[8:]}',
        'originator': originator,
        'rbac_permissions': list(rbac.permissions(roles)) if roles else [],
    }
    return db.create('session', fields)


def destroy(db: database.Database, session: str) -> None:
    """End a session, waking the event calls that wait on it."""
    with db.lock:
        if db.find('session', session) is None:
            return
        db.delete('session', session)


def touch(db: database.Database, row: database.Row, session: str) -> None:
    """Note that a session is used; at most every ten minutes."""
    now = db.clock.now()
    if now - clock_module.from_iso(row.record['last_active']) > REFRESH:
        db.set('session', session, last_active=db.clock.iso(now))


def collect_garbage(db: database.Database) -> None:
    """End idle sessions, and the oldest of those beyond the caps."""
    now = db.clock.now()
    groups = collections.defaultdict(list)
    with db.lock:
        for ref, record in db.all('session').items():
            if _is_busy(db, record):
                continue
            active = clock_module.from_iso(record['last_active'])
            if now - active > IDLE:
                destroy(db, ref)
            else:
                groups[_group(record)].append((active, ref))
        for (_, cap), members in groups.items():
            members.sort()
            for _, ref in members[: max(0, len(members) - cap)]:
                destroy(db, ref)


def _is_busy(db: database.Database, record: database.Record) -> bool:
    """Tell whether a session has tasks that are not finished."""
    for task in record['tasks']:
        found = db.find('task', task)
        if found is not None and found['status'] not in tasks.COMPLETED:
            return True
    return False


def _group(record: database.Record) -> tuple[str, int]:
    """Return the sessions' group that shares a cap, and the cap."""
    if record['pool']:
        return 'pool', CAP_POOL
    if not record['is_local_superuser']:
        return f'user {record["auth_user_name"]}', CAP_USER
    if record['originator']:
        return f'originator {record["originator"]}', CAP_ORIGINATOR
    return 'root', CAP_ROOT


def _authentication_failed(user: str, reason: str) -> errors.ApiError:
    return errors.ApiError('SESSION_AUTHENTICATION_FAILED', user, reason)


def _check_root(call: registry.Call, user: str, password: str) -> None:
    if not call.machine.check_password(user, password):
        reason = REASON_DENIED if user == ROOT else REASON_UNKNOWN
        raise _authentication_failed(user, reason)


def _check_secret(call: registry.Call, who: str, secret: str) -> None:
    if secret != call.machine.secret:
        raise _authentication_failed(who, REASON_FOREIGN)


@registry.message('session.login_with_password', needs_db=False)
def _login(
    call: registry.Call,
    uname: str,
    pwd: str,
    version: str,
    originator: str,
) -> str:
    role, address = call.machine.role
    if role == 'slave':
        # The password is not even looked at (recorded).
        raise errors.host_is_slave(address)
    call.machine.hang_db()
    subject = call.db.side.get('subjects', {}).get(uname)
    if subject is not None and subject.password == pwd:
        roles = subject.roles
    else:
        _check_root(call, uname, pwd)
        roles = None
    return create(
        call.db,
        host=call.here,
        user=uname,
        originator=originator,
        roles=roles,
    )


@registry.message('session.slave_login')
def _slave_login(call: registry.Call, host: str, psecret: str) -> str:
    _check_secret(call, host, psecret)
    return create(
        call.db,
        host=host,
        pool=True,
        user=host,
        originator='xapi',
    )


def _open_local(call: registry.Call, user: str) -> str:
    number = call.rng.getrandbits(128)
    ref = f'OpaqueRef:{uuid.UUID(int=number)}'
    call.machine.local_sessions[ref] = user
    return ref


@registry.message('session.slave_local_login', emergency=True, needs_db=False)
def _slave_local_login(call: registry.Call, psecret: str) -> str:
    _check_secret(call, 'localhost', psecret)
    return _open_local(call, '')


@registry.message(
    'session.slave_local_login_with_password', emergency=True, needs_db=False
)
def _slave_local_login_with_password(
    call: registry.Call, uname: str, pwd: str
) -> str:
    _check_root(call, uname, pwd)
    return _open_local(call, uname)


@registry.message('session.logout')
def _logout(call: registry.Call) -> None:
    # A local session survives this: it is in no table (recorded).
    if call.session_ref is not None:
        destroy(call.db, call.session_ref)


@registry.message('session.local_logout', emergency=True, needs_db=False)
def _local_logout(call: registry.Call) -> None:
    if call.session_ref is not None:
        call.machine.local_sessions.pop(call.session_ref, None)


@registry.message('session.change_password')
def _change_password(call: registry.Call, old_pwd: str, new_pwd: str) -> None:
    # The superuser is not asked for the old one (xapi_session.ml).
    call.machine.change_password(new_pwd)


def _external(
    db: database.Database,
) -> collections.abc.Iterator[tuple[str, database.Record]]:
    for ref, record in db.all('session').items():
        if not record['is_local_superuser']:
            yield ref, record


@registry.message('session.get_all_subject_identifiers')
def _get_all_subject_identifiers(call: registry.Call) -> list[str]:
    return sorted({r['auth_user_sid'] for _, r in _external(call.db)})


@registry.message('session.logout_subject_identifier')
def _logout_subject_identifier(
    call: registry.Call, subject_identifier: str
) -> None:
    for ref, record in list(_external(call.db)):
        mine = ref == call.session_ref
        if record['auth_user_sid'] == subject_identifier and not mine:
            destroy(call.db, ref)
