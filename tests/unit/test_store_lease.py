# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The keeper of a lease: a clock that stands still, a store that answers."""

from __future__ import annotations

import logging
import threading
import typing

import pytest

from xenpool_driver import exceptions, store


class Clock:
    """Shows what it is told; its two times differ, as real ones do."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return 1_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Renewer:
    """A store that renews, or raises what it is told to raise."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.error: Exception | None = None
        self.renewed: list[tuple[int, float]] = []
        self.asked = threading.Event()

    def renew(
        self, operation: store.Operation, lease: float
    ) -> store.Operation:
        self.asked.set()
        if self.error:
            raise self.error
        self.renewed.append((operation.epoch, lease))
        return operation


def operation(lease: float = 60.0) -> store.Operation:
    return store.Operation(
        uuid='0f0e0d0c-0000-4000-8000-000000000000',
        aggregate_uuid='a',
        kind='join',
        host='xen01',
        phase='begun',
        owner='worker-1',
        epoch=4,
        lease=lease,
        lease_expires=1_000_000.0 + lease,
        started_at=1_000_000.0,
    )


def keeper_of(
    renewer: Renewer, *more: typing.Any, lease: float | None = None
) -> store.LeaseKeeper:
    """Return the keeper of an operation that was begun a moment ago."""
    return store.LeaseKeeper(
        renewer, *(more or (operation(),)), STARTED, lease
    )


STARTED = store.Moment(0.0, 1_000_000.0)


@pytest.fixture
def renewer() -> Renewer:
    return Renewer()


def test_renews_at_a_third_of_the_lease(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    assert keeper.beat() == 20.0
    assert renewer.renewed == [(4, 60.0)]
    assert not keeper.lost
    keeper.check()


def test_lease_may_be_given(renewer: Renewer) -> None:
    keeper = keeper_of(renewer, lease=9.0)
    assert keeper.beat() == 3.0
    assert renewer.renewed == [(4, 9.0)]


def test_taken_over_is_lost_for_good(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.error = exceptions.LeaseLost('taken over by worker-2')
    assert keeper.beat() is None
    assert keeper.lost
    assert keeper.reason == 'taken over by worker-2'
    with pytest.raises(exceptions.LeaseLost, match='worker-2'):
        keeper.check()


def test_database_away_is_borne_while_the_lease_lasts(
    renewer: Renewer, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_of(renewer)
    renewer.error = exceptions.StoreError('database is away')
    pauses = []
    with caplog.at_level(logging.WARNING):
        while (pause := keeper.beat()) is not None:
            pauses.append(pause)
            assert not keeper.lost
            renewer.clock.now += pause
    assert sum(pauses) == pytest.approx(60.0)
    assert keeper.lost
    assert 'ran out: database is away' in keeper.reason
    assert 'database is away' in caplog.text


def test_database_that_comes_back_keeps_the_lease(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.clock.now = 59.0
    renewer.error = exceptions.StoreError('database is away')
    assert keeper.beat() == pytest.approx(1.0)
    renewer.error = None
    assert keeper.beat() == 20.0
    renewer.clock.now += 59.0
    renewer.error = exceptions.StoreError('database is away')
    assert keeper.beat() == pytest.approx(1.0)


def test_wall_clock_set_back_gives_no_more_time(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.error = exceptions.StoreError('database is away')
    renewer.clock.now = 61.0
    renewer.clock.time = lambda: 0.0  # type: ignore[method-assign]
    assert keeper.beat() is None
    assert keeper.lost


def held(keeper: store.LeaseKeeper) -> bool:
    """Say whether a change may be sent."""
    try:
        keeper.assert_held()
    except exceptions.LeaseLost:
        return False
    return True


def test_a_change_may_be_sent_until_the_margin(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.clock.now = 49.9
    assert held(keeper)
    renewer.clock.now = 50.0
    with pytest.raises(exceptions.LeaseLost, match=r'50 s ago.*for 60 s'):
        keeper.assert_held()
    assert not keeper.lost
    keeper.beat()
    assert held(keeper)


def test_a_paused_machine_counts_by_the_wall_clock(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.clock.time = lambda: 1_000_300.0  # type: ignore[method-assign]
    assert not held(keeper)


def test_a_wall_clock_set_back_gives_no_leave(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.clock.now = 55.0
    renewer.clock.time = lambda: 0.0  # type: ignore[method-assign]
    assert not held(keeper)


def test_a_late_answer_counts_from_when_it_was_asked(
    renewer: Renewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of(renewer)

    def renew(*args: typing.Any) -> store.Operation:
        renewer.clock.now += 52.0
        return operation()

    monkeypatch.setattr(renewer, 'renew', renew)
    keeper.beat()
    assert not held(keeper)


def test_an_older_confirmation_takes_nothing_away(renewer: Renewer) -> None:
    keeper = keeper_of(renewer)
    renewer.clock.now = 40.0
    keeper.confirm(keeper.moment())
    keeper.confirm(STARTED)
    renewer.clock.now = 80.0
    assert held(keeper)


def test_background_renews_and_stops(renewer: Renewer) -> None:
    with keeper_of(renewer, operation(0.003)) as keeper:
        assert renewer.asked.wait(60)
        assert not keeper.lost
    stopped = len(renewer.renewed)
    keeper.stop()
    assert len(renewer.renewed) == stopped
    names = [thread.name for thread in threading.enumerate()]
    assert 'lease-0f0e0d0c' not in names


def test_background_tells_of_the_loss(renewer: Renewer) -> None:
    renewer.error = exceptions.LeaseLost('taken over by worker-2')
    with keeper_of(renewer, operation(0.003)) as keeper:
        assert keeper.wait_lost(60)
        assert keeper.lost


def test_error_of_the_worker_passes_through(renewer: Renewer) -> None:
    caught: typing.Any
    with (
        pytest.raises(ZeroDivisionError) as caught,
        keeper_of(renewer),
    ):
        raise ZeroDivisionError
    assert caught.type is ZeroDivisionError


def test_unforeseen_error_is_a_loss_and_is_not_hidden(
    renewer: Renewer, caplog: pytest.LogCaptureFixture
) -> None:
    """A keeper that died in silence would let its worker go on alone."""
    renewer.error = RuntimeError('a bug')
    with keeper_of(renewer, operation(0.003)) as keeper:
        assert keeper.wait_lost(60)
    assert 'a bug' in keeper.reason
    assert 'RuntimeError' in caplog.text
