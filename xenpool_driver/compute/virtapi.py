# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a driver may ask of the compute service that loaded it."""

from __future__ import annotations

import typing

from xenpool_driver import base, model, requests


class RemoteManager(typing.Protocol):
    """Whoever takes a request to another service (``rpcapi.ComputeAPI``)."""

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        options: requests.AddHost,
        slave_info: base.SlaveInfo | None = None,
        *,
        server: str | None = None,
    ) -> None:
        """Have ``server``'s service join ``host``."""


class ComputeVirtAPI(base.VirtAPI):
    """Callbacks into the service, handed to the driver when it is loaded.

    :param remote: takes requests to the other services.
    """

    def __init__(self, remote: RemoteManager) -> None:
        self._remote = remote

    def forward_add(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        master: str,
        slave_info: base.SlaveInfo,
        options: requests.AddHost,
    ) -> None:
        """Have the master's service make the join on ``host``'s behalf.

        This is Nova's forwarding, for a service that runs in a guest on the
        joining host: that guest is shut down before the join, and the
        thread that waits here goes down with it.

        :param host: compute host name of the joiner.
        :param master: compute host name of the master.
        :param slave_info: which host to act for; never a password.
        :param options: how the join was asked for.
        :raises ServiceUnavailable: no service answers for the master.
        """
        self._remote.add_aggregate_host(
            context,
            aggregate,
            host,
            options,
            slave_info=slave_info,
            server=master,
        )
