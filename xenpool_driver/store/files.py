# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The file of an SQLite database, and what may be done to it.

SQLite locks a file by POSIX locks. A process loses all of its locks on a file
when it closes any descriptor of that file, also one that SQLite knows nothing
of (https://www.sqlite.org/howtocorrupt.html, section 2.2). Another process
then takes the database for unused, and unlinks the log that is being written.
So nothing in this package ever opens a database file but SQLite. This module
looks at names only, and makes a new file under another name.
"""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import fcntl
import os
import pathlib
import shlex
import sqlite3
import stat
import urllib.parse

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions

_STEP = 0.05
"""Seconds between two looks at the lock file."""

_BESIDE = ('', '-wal', '-shm', '-journal')
"""How the names of the files of one database end."""


def uri(path: str) -> str:
    """Return the name by which SQLite opens a file, and never makes one."""
    return f"file:{urllib.parse.quote(path)}?mode=rw"


def exists(path: str) -> bool:
    """Say whether there is a database that can be used.

    :param path: absolute.
    :returns: False when nothing has this name.
    :raises StoreError: what has this name cannot be used.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, NotADirectoryError):
            raise _refusal(path, error) from None
        return False
    except OSError as error:
        raise _refusal(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        kind = 'Is a directory' if stat.S_ISDIR(found.st_mode) else 'no file'
        raise exceptions.StoreError(f"database {path}: {kind} ({path})")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        fixed = os.statvfs(path).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if fixed else errno.EACCES)
        raise exceptions.StoreError(f"database {path}: {why} ({path})")
    if not found.st_size:
        raise exceptions.StoreError(
            f"database {path} is an empty file, so it is none of ours: a new "
            f"database gets its name only when it is whole. If nothing was "
            f"in it, remove it: rm {shlex.quote(path)}"
        )
    return True


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one that got its name.

    :returns: None when nothing has the name.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def missing(path: str) -> exceptions.NoDatabase:
    """Return the error of a request that needs a database."""
    return exceptions.NoDatabase(
        f"there is no database {path}, and nothing was created: is "
        f"[database] connection right? The first aggregate makes it: "
        f"xenpool aggregate create pool1"
    )


def make(path: str, fill: collections.abc.Callable[[str], None]) -> None:
    """Make a new database whole, then give it its name.

    Whoever is killed meanwhile leaves no database. When another process was
    quicker, its database is used.

    :param path: absolute; the directory exists.
    :param fill: is given the name of an empty file that only the owner can
        read. It makes the database in it and closes it.
    :raises StoreError: it cannot be made.
    """
    draft = f"{path}.new"
    try:
        _remove(draft)
        os.close(
            os.open(
                draft,
                os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC,
                0o600,
            )
        )
        try:
            fill(draft)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            _remove(draft)
        _sync(os.path.dirname(path))
    except OSError as error:
        raise _refusal(path, error) from None


def make_directory(path: str) -> None:
    """Make the directory of a database, for its owner only.

    :param path: of the database.
    :raises StoreError: it cannot be made.
    """
    try:
        pathlib.Path(path).parent.mkdir(
            parents=True, exist_ok=True, mode=0o700
        )
    except OSError as error:
        raise _refusal(path, error) from None


@contextlib.contextmanager
def locked(path: str, longest: float) -> collections.abc.Iterator[None]:
    """Exclude other processes that would create or upgrade the same file.

    :param path: of the database. The lock is a file of its own beside it.
    :param longest: seconds to wait for another process.
    :raises StoreError: another process holds the lock for longer.
    """
    lock = f"{path}.lock"
    clock = clocks.SYSTEM  # another process works on the lock in real time
    deadline = clock.monotonic() + longest
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        while not take_lock(handle):
            if clock.monotonic() >= deadline:
                raise exceptions.StoreError(
                    f"database {path} is being upgraded by another process "
                    f"for more than {longest:g} s ({lock} is locked)"
                )
            clock.sleep(_STEP)
        yield
    finally:
        os.close(handle)


def take_lock(handle: int) -> bool:
    """Lock an open file, if nobody else has; say whether it is locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def trouble(path: str, code: int) -> str | None:
    """Return in our words what keeps SQLite from using a file.

    :param path: absolute.
    :param code: SQLite's extended error code.
    :returns: None where SQLite's own words say it.
    """
    directory = os.path.dirname(path)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (
        primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        and _is_full(directory)
    ):
        return full(directory)
    if primary == sqlite3.SQLITE_CANTOPEN:
        if not os.path.exists(path):
            return f"{os.strerror(errno.ENOENT)} ({path})"
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            return f"{os.strerror(errno.EACCES)} ({directory})"
    return None


def full(directory: str) -> str:
    """Return what is said of a disk that is full."""
    return (
        f"the disk is full: there is no space left for {directory}, and what "
        f"was to be written is not. Free some and repeat the request; see: "
        f"df -h {shlex.quote(directory)}"
    )


def _is_full(directory: str) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    # Some file systems count no inodes at all.
    return not found.f_bavail or bool(found.f_files and not found.f_favail)


def _refusal(path: str, error: OSError) -> exceptions.StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        directory = os.path.dirname(path)
        return exceptions.StoreError(f"database {path}: {full(directory)}")
    return exceptions.StoreError(
        f"database {path}: {error.strerror} ({error.filename})"
    )


def _remove(draft: str) -> None:
    """Remove a draft, also one that somebody left who was killed."""
    for ending in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft + ending)


def _sync(directory: str) -> None:
    """Let the names in a directory survive a loss of power."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
