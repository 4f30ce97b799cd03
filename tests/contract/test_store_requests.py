# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Requests on the bus, on each of the store's databases: taken or withdrawn,
never both."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from tests.contract import store_kit
from xenpool_driver import exceptions, store

ROUNDS = 20


@pytest.fixture
def url(database_url: str) -> str:
    """The URL of an empty store on each database in turn."""
    store.migrate(database_url)
    return database_url


def test_a_withdrawn_request_begins_no_operation_whoever_is_first(
    url: str,
) -> None:
    """The service begins its operation as the caller withdraws it."""
    with (
        store.Store(url) as services,
        store.Store(url) as callers,
        concurrent.futures.ThreadPoolExecutor(1) as worker,
    ):
        row = callers.create_aggregate('prod', store_kit.POOL)
        begun = 0
        for number in range(ROUNDS):
            sent = callers.send_request(
                row.uuid, 'add_aggregate_host', 'xen02', 'req-1', 10.0
            )
            assert 9.0 < sent.until - sent.sent_at < 11.0
            services.take_request(sent.uuid, 'box:1')
            barrier = threading.Barrier(2)

            def begin(uuid: str, at: threading.Barrier) -> store.Operation:
                at.wait(store_kit.PATIENCE)
                operation, _ = services.begin(
                    row.uuid,
                    'join',
                    'xen02',
                    'box:1',
                    60.0,
                    {},
                    store_kit.nothing,
                    sent_request=uuid,
                )
                return operation

            running = worker.submit(begin, sent.uuid, barrier)
            barrier.wait(store_kit.PATIENCE)
            found = callers.withdraw_request(sent.uuid)
            try:
                operation = running.result(store_kit.PATIENCE)
            except exceptions.RequestDropped:
                assert found.withdrawn_at is not None, number
                assert callers.running_operations() == []
                continue
            begun += 1
            assert found.withdrawn_at is None, number
            assert found.operation_uuid == operation.uuid
            services.finish(operation, 'succeeded')
            services.end_request(sent.uuid, {'result': None})
            assert callers.withdraw_request(sent.uuid).answer == {
                'result': None
            }
        assert len(callers.list_operations()) == begun
        assert len(callers.list_requests()) == ROUNDS - begun
