# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The frame of every verb: check, save the intent, act, observe, save.

A verb (``verbs/``) says what is special about a kind of request; this file
says what all kinds have in common:

1. ``prepare``: read, judge, refuse. Nothing was touched, nothing is written.
2. ``begin``: one transaction admits the request, moves the lifecycle and
   writes the operation down, with a lease that is renewed from then on.
3. ``act``: each phase is saved before the call that it announces.
4. ``observe``: look at XAPI until it shows the goal, or time is over. What
   the calls answered is a hint; what XAPI shows afterwards is the outcome.
5. ``finish``: one transaction writes the outcome and the lifecycle's step.

A worker may die at any point. :func:`resume` then takes the operation over
when its lease has run out, and goes on at step 4; verbs that can see which
of their calls are missing first make those (:meth:`Verb.go_on`).
"""

from __future__ import annotations

import abc
import collections.abc
import contextlib
import dataclasses
import os
import shlex
import socket
import typing
import uuid

from oslo_config import cfg
from oslo_log import log

from xenpool_driver import (
    clock,
    exceptions,
    model,
    pool_states,
    reconcile,
    store,
    takeover,
)

if typing.TYPE_CHECKING:
    from xenpool_driver.xapi import changes as xapi_changes
    from xenpool_driver.xapi import client, connections

LOG = log.getLogger(__name__)

Observation = reconcile.Observation


ORIGINATOR = 'xenpool-driver'
"""What the originators of our logins begin with."""

SIGHT = 60.0
"""Seconds to wait for a sight of XAPI where nothing else is waited for: a
toolstack restarts in less."""


def new_owner() -> str:
    """Return a name for this worker that no other worker has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclasses.dataclass(frozen=True)
class Site:
    """What every verb works with.

    :ivar conf: the options.
    :ivar store: what must survive.
    :ivar connections: the doors to the hosts.
    :ivar clock: time.
    :ivar owner: this worker's name, as leases show it.
    """

    conf: cfg.ConfigOpts
    store: store.Store
    connections: connections.Connections
    clock: clock.Clock = clock.SYSTEM
    owner: str = dataclasses.field(default_factory=new_owner)


def silent(host: str, phase: str, fraction: float | None) -> None:
    """Be a :class:`model.Progress` that nobody listens to."""


class Journal:
    """Where a running operation writes down what it is about to do.

    It is the operation's permit, too (:class:`xapi.permit.Permit`): who has
    it can change something in XAPI, as long as the operation is this
    worker's.

    :ivar operation: the operation, as last written.
    :param site: what the verb works with.
    :param operation: the operation, just begun or taken over.
    :param keeper: renews the lease in the background.
    :param progress: hears each phase.
    """

    def __init__(
        self,
        site: Site,
        operation: store.Operation,
        keeper: store.LeaseKeeper,
        progress: model.Progress,
    ) -> None:
        self.operation = operation
        self._site = site
        self._keeper = keeper
        self._progress = progress
        self._logins = site.connections.logins(self)

    def changes(self, door: client.Client) -> xapi_changes.PoolChanges:
        """Return what may be changed through the master of a pool.

        :param door: the way to it.
        """
        return self._logins.pool(door)

    def local_changes(
        self, door: client.LocalClient
    ) -> xapi_changes.HostChanges:
        """Return what may be changed on a host itself.

        :param door: the way to it.
        """
        return self._logins.host(door)

    @property
    def originator(self) -> str:
        """The name under which XAPI records the operation's logins."""
        return f"{ORIGINATOR}/{self.operation.uuid}"

    def may_send(self) -> None:
        """Let a change be sent while the operation is surely ours.

        :raises LeaseLost: it may be another worker's.
        """
        self._keeper.assert_held()

    def logged_in(self, host: str, address: str, uuid: str) -> None:
        """Write down a login, so that who takes over can end it.

        :param host: the name of the host that gave it.
        :param address: the host's address.
        :param uuid: of the login's record; '' for a local one.
        :raises LeaseLost: another worker owns the operation now.
        """
        login = {'host': host, 'address': address, 'uuid': uuid}
        known = self.details.get(takeover.LOGINS, ())
        self.remember(**{takeover.LOGINS: [*known, login]})

    def remember(self, **details: typing.Any) -> None:
        """Save what a successor needs, without a line of the story.

        :param details: are merged into :attr:`details`.
        :raises LeaseLost: another worker owns the operation now.
        """
        sent = self._keeper.moment()
        self.operation = self._site.store.remember(self.operation, details)
        self._keeper.confirm(sent)

    def end_adrift(self) -> None:
        """End the logins over which calls went that nobody answered."""
        self._logins.end_adrift()

    def end_logins(self) -> None:
        """Log out where something was changed."""
        self._logins.end()

    @property
    def details(self) -> dict[str, typing.Any]:
        """What was saved beside the phases."""
        return self.operation.details

    def phase(self, name: str, note: str = '', **details: typing.Any) -> None:
        """Save that ``name`` is about to happen.

        :param name: the phase.
        :param note: what a reader of the story should know.
        :param details: what a successor needs to go on.
        :raises LeaseLost: another worker owns the operation now.
        """
        sent = self._keeper.moment()
        self.operation = self._site.store.phase(
            self.operation, name, note, details
        )
        self._keeper.confirm(sent)
        LOG.info(
            '%s %s: %s%s',
            self.operation.kind,
            self.operation.host,
            name,
            f' ({note})' if note else '',
        )
        self.progress(name)

    def progress(self, phase: str, fraction: float | None = None) -> None:
        """Tell the listener how far the phase is, 0 to 1 if known."""
        self._progress(self.operation.host or '', phase, fraction)

    def still_ours(self) -> None:
        """Stop here if another worker has taken the operation over.

        :raises LeaseLost: it has.
        """
        self._keeper.check()


class Verb(abc.ABC):
    """One kind of request.

    :cvar kind: the operation's kind, as the journal shows it.
    :cvar request: the request, as the lifecycle knows it.
    :cvar action: the driver's method, for messages.
    :cvar refused: the error of a refusal.
    :cvar goal: what XAPI shows when all is done.
    :cvar verdicts: what settles the operation, too, when XAPI has shown it
        without a break for ``patience`` seconds.
    :cvar repeatable: whether a successor may run ``act`` when it does not see
        the goal.
    :cvar refusals: codes by which XAPI itself refuses what the prechecks
        could not see; such a request has not failed.
    :ivar counts: whether its end counts for the lifecycle: a failure towards
        the threshold, a success back to none.
    :ivar findings: what else who asked should know, when it has ended.
    :ivar lasting: what is written into the aggregate's metadata at the end,
        whatever came of the request.
    :ivar listener: hears what :meth:`prepare` waits for.
    :param site: what the verb works with.
    :param row: the aggregate, as the store has it.
    :param host: compute host name of the host concerned; '' for none.
    """

    kind: typing.ClassVar[str]
    request: typing.ClassVar[str]
    action: typing.ClassVar[str]
    refused: typing.ClassVar[type[exceptions.InvalidAggregateAction]]
    goal: typing.ClassVar[reconcile.Observation]
    verdicts: typing.ClassVar[frozenset[reconcile.Observation]] = frozenset()
    patience: typing.ClassVar[float] = 5.0
    repeatable: typing.ClassVar[bool] = False
    refusals: typing.ClassVar[frozenset[str]] = frozenset()
    counts = True

    def __init__(self, site: Site, row: store.Aggregate, host: str) -> None:
        self.site = site
        self.row = row
        self.host = host
        self.findings: tuple[model.Finding, ...] = ()
        self.lasting: dict[str, str | None] = {}
        self.listener: model.Progress = silent

    def prepare(self) -> None:  # noqa: B027 - many have nothing to do
        """Read and judge. Change nothing.

        :raises InvalidAggregateAction: the request cannot be granted.
        """

    def intent(self) -> dict[str, typing.Any]:
        """Return what a successor must know, as JSON values."""
        return {}

    def restore(  # noqa: B027 - many have nothing to do
        self, details: collections.abc.Mapping[str, typing.Any]
    ) -> None:
        """Take over from a dead worker: be what :meth:`intent` described."""

    def basis(self, row: store.Aggregate) -> object:
        """Return what of the aggregate :meth:`prepare` built upon.

        The answer must be the same when the request is admitted: meanwhile
        another worker may have emptied the aggregate, and given it another
        pool; what was judged would then be done to a pool that is not ours.
        """
        known = row.metadata.get
        return (
            known(pool_states.POOL_UUID),
            known(pool_states.MASTER),
            known(self.host),
            self.host in row.hosts,
            row.hosts == [self.host],
        )

    def begin_changes(self, row: store.Aggregate) -> store.Changes:
        """Return what is written when the request is admitted."""
        return store.Changes()

    @abc.abstractmethod
    def act(self, journal: Journal) -> None:
        """Make the calls.

        :raises XapiError: a call was refused, not sent or not answered.
        """

    def go_on(self, journal: Journal) -> None:
        """Make the calls that a dead worker left out, seen to be missing.

        Most verbs have one call that changes everything. Whether that was
        made is for :meth:`observe` to see; it is never made again.

        :raises XapiError: a call was refused, not sent or not answered.
        """
        if self.repeatable and self.observe() != self.goal:
            self.act(journal)

    @abc.abstractmethod
    def observe(self) -> reconcile.Observation:
        """Look at XAPI once and say what it shows.

        :raises XapiError: it cannot be seen.
        """

    @property
    @abc.abstractmethod
    def timeout(self) -> float:
        """Seconds from the call until the goal must be seen."""

    @property
    def longest(self) -> float:
        """Seconds that one of its calls may take in XAPI."""
        return self.timeout

    @abc.abstractmethod
    def end_changes(
        self, row: store.Aggregate, settlement: reconcile.Settlement
    ) -> store.Changes:
        """Return what is written at the end, without the lifecycle's part."""

    def is_refusal(self, failure: exceptions.XapiError) -> bool:
        """Say whether a failure means that the request was refused.

        :param failure: why a call was not carried out.
        """
        return failure.code in self.refusals

    def patience_with(self, seen: reconcile.Observation) -> float:
        """Return for how many seconds a verdict must have been seen.

        :param seen: the verdict.
        """
        return self.patience

    def last_seen(self, seen: reconcile.Observation) -> str:
        """Return what hosts show and answer when the goal was not seen; ''
        where the observation says it all.

        :param seen: what was observed last.
        """
        return ''

    def remark(self, settlement: reconcile.Settlement) -> str:
        """Return what else is to be said of a failure: who is at fault, and
        the next command; '' for nothing.

        :param settlement: what is written about the operation.
        """
        return ''

    def afterwards(  # noqa: B027 - many have nothing to do
        self, journal: Journal, settlement: reconcile.Settlement
    ) -> None:
        """Do what is left to do when the outcome is known.

        :raises XapiError: it cannot be done; the operation has failed then.
        """

    def put_back(self, journal: Journal) -> None:  # noqa: B027 - as above
        """Put back what was set aside for the operation, whatever came of it.

        :raises XapiError: it cannot be; the operation has failed then.
        """


def admit(
    verb: Verb,
    row: store.Aggregate,
    running: collections.abc.Sequence[store.Operation],
) -> store.Changes:
    """Grant the request, or refuse it. Pure; called inside a transaction.

    Joins of different hosts may overlap; everything else excludes everything
    else on the same aggregate.

    :param verb: the request.
    :param row: the aggregate as it is now.
    :param running: its operations that have not ended.
    :raises InvalidAggregateAction: it is refused.
    """
    reason = pool_states.refusal(row.state, verb.request)
    if reason:
        way_out = pool_states.way_out(row.state, verb.request, row.name)
        raise verb.refused(
            row.name, '; '.join(filter(None, (reason, way_out)))
        )
    refuse_company(verb, row, running)
    changes = verb.begin_changes(row)
    if verb.basis(row) != verb.basis(verb.row):
        raise verb.refused(
            row.name,
            'it was changed by another request while this one was judged; '
            'repeat the request',
        )
    return changes


def refuse_company(
    verb: Verb,
    row: store.Aggregate,
    running: collections.abc.Iterable[store.Operation],
) -> None:
    """Refuse the request while another one excludes it.

    :param verb: the request.
    :param row: the aggregate as it is now.
    :param running: its operations that have not ended.
    :raises InvalidAggregateAction: it is refused.
    """
    for other in running:
        if verb.kind == other.kind == 'join' and verb.host != other.host:
            continue
        settling = shlex.join(('xenpool', 'aggregate', 'recover', row.name))
        raise verb.refused(
            row.name,
            f"{other.kind} of {other.host or 'the pool'} in progress "
            f"(operation {other.uuid}); its worker {other.owner} holds it "
            f"until {clock.moment(other.lease_expires)} and renews that while "
            f"it lives; if it has died, when that time is over: {settling}",
        )


def perform(
    verb: Verb,
    progress: model.Progress = silent,
    request_id: str | None = None,
    sent_request: str | None = None,
) -> store.Aggregate:
    """Carry a request out, from the checks to the outcome.

    :param verb: the request.
    :param progress: hears each phase.
    :param request_id: the caller's name for the request, for the journal.
    :param sent_request: uuid of the request, if it came over the bus.
    :returns: the aggregate as it is afterwards.
    :raises InvalidAggregateAction: refused; nothing happened.
    :raises AggregateError: tried and failed.
    """
    site = verb.site
    verb.listener = progress
    refuse_early(verb)
    verb.prepare()
    sent = store.Moment.of(site.clock)
    operation, verb.row = _begin(verb, request_id, sent_request)
    with _owned(site, operation, sent, progress) as journal:
        return _carry_out(verb, journal, verb.act)


def _begin(
    verb: Verb, request_id: str | None, sent_request: str | None
) -> tuple[store.Operation, store.Aggregate]:
    """Write the intent, unless the request is refused after all.

    :raises InvalidAggregateAction: it is; nothing happened.
    """
    site = verb.site
    try:
        return site.store.begin(
            verb.row.uuid,
            verb.kind,
            verb.host or None,
            site.owner,
            site.conf.xenpool.lease_duration,
            verb.intent(),
            lambda row, running: admit(verb, row, running),
            request_id,
            sent_request,
        )
    except exceptions.AggregateHostExists as error:
        raise verb.refused(verb.row.name, str(error)) from error


def resume(
    verb: Verb,
    operation: store.Operation,
    progress: model.Progress = silent,
    force: bool = False,
) -> store.Aggregate:
    """Take over an operation whose worker has died, and settle it.

    :param verb: the request, made anew for the operation's aggregate.
    :param operation: the operation; its lease has run out.
    :param progress: hears each phase.
    :param force: also before its lease has run out: a person says that its
        worker is dead.
    :returns: the aggregate as it is afterwards.
    :raises LeaseLost: its worker lives, or another one was quicker.
    :raises AggregateError: the operation has failed, as is recorded now.
    """
    verb.restore(operation.details)
    with _taken_over(
        verb.site, operation, progress, verb.longest, force
    ) as journal:
        journal.phase('recovering', f"after {operation.phase}")
        return _carry_out(verb, journal, verb.go_on)


@contextlib.contextmanager
def _taken_over(
    site: Site,
    operation: store.Operation,
    progress: model.Progress,
    longest: float,
    force: bool = False,
) -> collections.abc.Iterator[Journal]:
    """Own an operation, when its worker can do nothing any more.

    The epoch is raised first: from then on the worker can write down no
    login that is not found here.

    :param longest: seconds to wait for what its worker had started.
    :param force: also before its lease has run out.
    :raises LeaseLost: its worker lives, or another one was quicker.
    """
    before = site.store.get_operation(operation.uuid)
    sent = store.Moment.of(site.clock)
    taken = site.store.take_over(
        operation.uuid, site.owner, site.conf.xenpool.lease_duration, force
    )
    with _owned(site, taken, sent, progress) as journal:
        fence_of(site).raise_before(
            journal, before, site.store.lease_time, longest
        )
        yield journal


def fence_of(site: Site) -> takeover.Fence:
    """Return what ends the logins of other workers."""
    options = site.conf.xenpool
    return takeover.Fence(
        site.connections,
        site.clock,
        options.probe_timeout,
        options.poll_interval,
    )


def abandon(
    site: Site,
    operation: store.Operation,
    progress: model.Progress = silent,
) -> store.Aggregate:
    """Take over an operation whose worker has died, and end it unseen.

    Nobody looks at XAPI: what the dead worker asked for may be done, or not.
    For an aggregate that lets its pool go it does not matter.

    :param operation: the operation; its lease has run out.
    :param progress: hears each phase.
    :returns: the aggregate as it is afterwards.
    :raises LeaseLost: its worker lives, or another one was quicker.
    """
    threshold = site.conf.xenpool.failure_threshold
    with _taken_over(site, operation, progress, SIGHT) as journal:
        journal.end_logins()
        return site.store.finish(
            journal.operation,
            'unknown',
            f"outcome unknown: its worker died in phase {operation.phase}, "
            f"and the aggregate was released before anybody looked",
            lambda row: store.Changes(
                metadata=lifecycle_step(row, False, threshold)
            ),
        )


@contextlib.contextmanager
def _owned(
    site: Site,
    operation: store.Operation,
    sent: store.Moment,
    progress: model.Progress,
) -> collections.abc.Iterator[Journal]:
    """Keep the operation's lease, and log out at the end.

    :param operation: just begun or taken over.
    :param sent: when that was sent to the database.
    """
    duration = site.conf.xenpool.lease_duration
    with store.LeaseKeeper(site.store, operation, sent, duration) as keeper:
        journal = Journal(site, operation, keeper, progress)
        try:
            yield journal
        finally:
            journal.end_logins()


def refuse_early(verb: Verb) -> None:
    """Refuse what the lifecycle refuses before anything is read from XAPI.

    :raises InvalidAggregateAction: it is refused.
    """
    admit(verb, verb.row, verb.site.store.running_operations(verb.row.uuid))


def _carry_out(
    verb: Verb,
    journal: Journal,
    act: collections.abc.Callable[[Journal], None],
) -> store.Aggregate:
    """Act and observe, then write what came of it."""
    failure: exceptions.XapiError | None = None
    unanswered = ''
    try:
        act(journal)
    except exceptions.XapiOutcomeUnknown as error:
        LOG.warning('%s; looking at what came of it', error)
        unanswered = str(error)
    except exceptions.XapiError as error:
        failure = error
    seen, doubt = _watch(verb, journal, hurry=failure is not None)
    settlement = reconcile.settle(verb.kind, seen)
    last = verb.last_seen(seen) if settlement.outcome != 'succeeded' else ''
    if failure is not None and settlement.outcome != 'succeeded':
        outcome = _outcome_of(verb, failure, settlement)
        half = settlement.reason if outcome == 'failed' else ''
        settlement = dataclasses.replace(
            settlement,
            outcome=outcome,
            reason='; '.join(filter(None, (str(failure), half, last))),
        )
    elif settlement.outcome != 'succeeded' and (
        known := '; '.join(filter(None, (unanswered, doubt, last)))
    ):
        settlement = dataclasses.replace(
            settlement, reason=f"{settlement.reason} ({known})"
        )
    return _finish(verb, journal, _tidied(verb, journal, settlement))


def _tidied(
    verb: Verb, journal: Journal, settlement: reconcile.Settlement
) -> reconcile.Settlement:
    """Do what is left to do, and put back what was set aside.

    :returns: the settlement, which is a failure if one of the two is.
    """
    troubles = []
    try:
        verb.afterwards(journal, settlement)
    except exceptions.XapiError as error:
        troubles.append(f"afterwards: {error}")
    try:
        verb.put_back(journal)
    except exceptions.XapiError as error:
        troubles.append(f"afterwards: {error}")
    if not troubles:
        return settlement
    return dataclasses.replace(
        settlement,
        outcome='failed',
        reason='; '.join(filter(None, (settlement.reason, *troubles))),
    )


def _outcome_of(
    verb: Verb,
    failure: exceptions.XapiError,
    settlement: reconcile.Settlement,
) -> str:
    """Return ``refused`` where XAPI's own check is part of the verb's."""
    return 'refused' if verb.is_refusal(failure) else settlement.outcome


def _watch(
    verb: Verb, journal: Journal, hurry: bool
) -> tuple[reconcile.Observation, str]:
    """Observe until the goal or a verdict is seen, or time is over.

    :param hurry: a call has failed for sure, so the first thing that can be
        seen is the outcome; only blindness is waited for, and not for long.
    :returns: what was seen last, and why no more could be seen ('' if it
        could).
    """
    site = verb.site
    since = site.clock.monotonic()
    deadline = since + min(verb.timeout, SIGHT if hurry else verb.timeout)
    before = None
    while True:
        journal.still_ours()
        began = site.clock.monotonic()
        journal.end_adrift()
        seen, doubt = _look(verb)
        now = site.clock.monotonic()
        if seen != before:
            before, since = seen, now
            if seen == Observation.UNKNOWN:
                LOG.warning(
                    '%s %s: %s; looking again for up to %.0f s',
                    verb.kind,
                    verb.host,
                    doubt,
                    deadline - now,
                )
        patience = verb.patience_with(seen)
        settled = seen in verb.verdicts and now - since >= patience
        settled |= hurry and seen != Observation.UNKNOWN
        # One look in vain may take all the time: then there is another one.
        over = (began if seen == Observation.UNKNOWN else now) >= deadline
        if seen == verb.goal or settled or over:
            return seen, doubt
        journal.progress(str(seen))
        site.clock.sleep(site.conf.xenpool.poll_interval)


def _look(verb: Verb) -> tuple[reconcile.Observation, str]:
    """Observe once; who cannot see says why."""
    try:
        return verb.observe(), ''
    except exceptions.XapiError as error:
        return Observation.UNKNOWN, str(error)


def _finish(
    verb: Verb, journal: Journal, settlement: reconcile.Settlement
) -> store.Aggregate:
    """Write the outcome, and raise it if it is a failure."""
    site = verb.site
    threshold = site.conf.xenpool.failure_threshold
    succeeded = settlement.outcome == 'succeeded'
    journal.end_logins()  # what is late is not carried out afterwards

    def changes(row: store.Aggregate) -> store.Changes:
        own = verb.end_changes(row, settlement)
        own = dataclasses.replace(
            own, metadata={**own.metadata, **verb.lasting}
        )
        if settlement.outcome == 'refused' or own.dismiss or not verb.counts:
            return own
        steps = lifecycle_step(row, succeeded, threshold)
        return dataclasses.replace(own, metadata={**own.metadata, **steps})

    row = site.store.finish(
        journal.operation,
        settlement.outcome,
        None if succeeded else settlement.reason,
        changes,
    )
    journal.progress('done' if succeeded else 'failed', 1.0)
    if settlement.outcome == 'refused':
        raise verb.refused(row.name, settlement.reason)
    if not succeeded:
        LOG.info(
            '%s %s of aggregate %s: %s',
            verb.kind,
            verb.host,
            row.name,
            settlement.reason,
        )
        raise exceptions.AggregateError(
            row.name,
            f"{verb.action} {verb.host}".strip(),
            '; '.join(
                filter(
                    None,
                    (
                        settlement.reason,
                        verb.remark(settlement),
                        *counted(verb, row, threshold),
                    ),
                )
            ),
        )
    return row


def counted(
    verb: Verb, row: store.Aggregate, threshold: int
) -> tuple[str, ...]:
    """Return what a failure means for the aggregate, in words.

    :param row: the aggregate as the failure has left it.
    :param threshold: failed requests in a row that make an error.
    """
    if not verb.counts:
        return ()
    if row.state == pool_states.ERROR:
        way_out = pool_states.way_out(row.state, pool_states.ADD, row.name)
        return (
            f"the aggregate is in error; the way out, which touches no "
            f"host: {way_out}",
        )
    failed = row.metadata.get(pool_states.FAILED_REQUESTS)
    if not failed:
        return ()
    return (f"failed request {failed} of {threshold} in a row",)


def lifecycle_step(
    row: store.Aggregate, succeeded: bool, threshold: int
) -> dict[str, str | None]:
    """Return the metadata that the end of a request writes. Pure.

    In ``error`` nothing is written: it is irreversible and counts no more.
    Nor in ``dismissed``, which the request for it has written already.

    :param row: the aggregate as it is now.
    :param succeeded: whether the request did.
    :param threshold: failed requests in a row that make an error.
    """
    state = row.state
    if state in (pool_states.ERROR, pool_states.DISMISSED):
        return {}
    failed = int(row.metadata.get(pool_states.FAILED_REQUESTS) or 0)
    if state == pool_states.CHANGING:
        event = (
            pool_states.SETUP_SUCCEEDED
            if succeeded
            else pool_states.SETUP_FAILED
        )
    elif succeeded:
        event = pool_states.REQUEST_SUCCEEDED
    else:
        event = pool_states.failure_event(failed, threshold)
    return {
        pool_states.STATE: pool_states.next_state(state, event),
        pool_states.FAILED_REQUESTS: '0' if succeeded else str(failed + 1),
    }
