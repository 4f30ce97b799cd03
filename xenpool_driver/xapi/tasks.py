# Licensed under the Apache License, Version 2.0; see LICENSE.
"""XAPI's tasks: what became of an asynchronous call, as far as XAPI knows."""

from __future__ import annotations

import dataclasses
import enum
import logging
import typing

from xenpool_driver import clock as clocks
from xenpool_driver import exceptions
from xenpool_driver.xapi import errors, replies

if typing.TYPE_CHECKING:
    from xenpool_driver.xapi import changing, session

LOG = logging.getLogger(__name__)


class TaskState(enum.StrEnum):
    """How a task stands."""

    PENDING = 'pending'
    SUCCESS = 'success'
    FAILURE = 'failure'
    CANCELLED = 'cancelled'
    LOST = 'lost'
    """The task cannot be seen: the toolstack restarted, the connection
    broke, or XAPI refuses to show it. Nothing may be concluded; look at what
    the task was to change."""


@dataclasses.dataclass(frozen=True)
class TaskStatus:
    """What is known of a task.

    :ivar state: how it stands; equals the plain words too.
    :ivar progress: how much is done, 0 to 1.
    :ivar error: the code and parameters of a failure, else None.
    :ivar result: the result as XAPI writes it, an XML fragment.
    :ivar reason: why it is lost; '' otherwise.
    """

    state: TaskState
    progress: float = 0.0
    error: tuple[str, ...] | None = None
    result: str = ''
    reason: str = ''


class OnProgress(typing.Protocol):
    """Who wants to hear how far a task is."""

    def __call__(self, fraction: float, /) -> None:
        """Hear how much is done, 0 to 1."""


class Task:
    """A task on the host that was asked.

    :ivar ref: its reference.
    :param home: the session to look at it with.
    :param ref: its reference.
    :param owner: the session with which it was started.
    """

    def __init__(
        self,
        home: session.HostSession,
        ref: str,
        owner: changing.ChangingSession,
    ) -> None:
        self.ref = ref
        self._home = home
        self._owner = owner

    def __repr__(self) -> str:
        return f"<Task {self.ref} on {self._home.access.name}>"

    @property
    def host(self) -> str:
        """The name of the host that runs it."""
        return self._home.access.name

    def status(self) -> TaskStatus:
        """Look at the task; one that XAPI does not show is lost."""
        try:
            record = self._home.read_all('task.get_record', args=[self.ref])
        except exceptions.XapiError as error:
            # Refused or not, it says nothing of what the task does.
            return TaskStatus(TaskState.LOST, reason=str(error))
        return _status(record)

    def cancel(self) -> None:
        """Ask XAPI to stop; a task that cannot stop goes on.

        :raises XapiError: XAPI refused, or cannot be asked.
        """
        self._owner.change('task.cancel', self.ref)

    def destroy(self) -> None:
        """Let XAPI forget the task, which it does by itself after an hour."""
        try:
            self._owner.change('task.destroy', self.ref)
        except exceptions.XapiError as error:
            LOG.debug('task %s is left to XAPI: %s', self.ref, error)

    def failure(self, status: TaskStatus) -> exceptions.XapiError:
        """Return the error that the call would have raised synchronously.

        :param status: a failed or cancelled task's.
        """
        access = self._home.access
        peer = errors.Peer(access.name, access.url, (access.password,))
        details = status.error or ('TASK_CANCELLED', self.ref)
        return errors.from_answer(details, peer, changing=True)


def watch(
    task: Task,
    clock: clocks.Clock,
    timeout: float,
    poll: float,
    on_progress: OnProgress | None = None,
) -> TaskStatus:
    """Watch a task until it is no longer pending, or time is over.

    :param task: the task.
    :param clock: time.
    :param timeout: seconds after which to give up.
    :param poll: seconds between two looks.
    :param on_progress: hears each look's progress.
    :returns: what the last look showed; still pending when time is over.
    """
    deadline = clock.monotonic() + timeout
    while True:
        status = task.status()
        if on_progress is not None and status.state is not TaskState.LOST:
            on_progress(status.progress)
        left = deadline - clock.monotonic()
        if status.state is not TaskState.PENDING or left <= 0:
            return status
        clock.sleep(min(poll, left))


def wait(
    task: Task,
    clock: clocks.Clock,
    timeout: float,
    poll: float,
    on_progress: OnProgress | None = None,
) -> TaskStatus:
    """Watch a task as :func:`watch` does, and raise what it failed with.

    XAPI keeps a task that has ended for an hour, and of all together no more
    than 200; so it is destroyed as soon as it has told what it had to.

    :returns: the status of a task that succeeded.
    :raises XapiRefused: it failed with a code of XAPI's.
    :raises NotPoolMaster: it failed because a host that it asked is a
        member.
    :raises XapiUnavailable: it failed before it changed anything.
    :raises XapiOutcomeUnknown: it got lost, was cancelled, or is not done
        when time is over: look at what it was to change.
    """
    status = watch(task, clock, timeout, poll, on_progress)
    if status.state in ENDED:
        task.destroy()
    if status.state is TaskState.SUCCESS:
        return status
    if status.state in ENDED:
        raise task.failure(status)
    if status.state is TaskState.LOST:
        reason = f"the task cannot be seen any more ({status.reason})"
    else:
        reason = (
            f"the task is not done after {timeout:g} s; it was at "
            f"{status.progress:.0%} last"
        )
    raise exceptions.XapiOutcomeUnknown(reason, task.host)


ENDED = frozenset({TaskState.SUCCESS, TaskState.FAILURE, TaskState.CANCELLED})
"""The states in which a task stays."""

_STATES = {
    'pending': TaskState.PENDING,
    'cancelling': TaskState.PENDING,  # published, but never set by XAPI
    'success': TaskState.SUCCESS,
    'failure': TaskState.FAILURE,
    'cancelled': TaskState.CANCELLED,
}


def _status(record: typing.Mapping[str, typing.Any]) -> TaskStatus:
    """Read a task record."""
    word = str(record.get('status'))
    state = _STATES.get(word)
    if state is None:
        return TaskStatus(TaskState.LOST, reason=f"its status is {word}")
    try:
        error = tuple(replies.details(record.get('error_info') or []))
        progress = float(record.get('progress') or 0.0)
    except (replies.OddReply, TypeError, ValueError):
        return TaskStatus(TaskState.LOST, reason='its record makes no sense')
    return TaskStatus(
        state=state,
        progress=progress,
        error=error or None,
        result=str(record.get('result') or ''),
    )
