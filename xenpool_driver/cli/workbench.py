# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What commands work with, opened when it is first asked for."""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import logging
import typing

from xenpool_driver import exceptions

if typing.TYPE_CHECKING:
    from oslo_config import cfg
    from oslo_context import context as request_context

    from xenpool_driver import conf as config
    from xenpool_driver import store
    from xenpool_driver.compute import aggregates

LOG = logging.getLogger(__name__)


class Workbench:
    """Opens the configuration, the store and the managers; closes them.

    :param files: configuration files, or None for the usual ones.
    :param on_secrets: told every password once it has been read, so that
        no log line shows one.
    """

    def __init__(
        self,
        files: collections.abc.Sequence[str] | None,
        on_secrets: typing.Callable[[set[str]], None],
    ) -> None:
        self._files = files
        self._on_secrets = on_secrets
        self._create = False
        self._exits = contextlib.ExitStack()

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The options.

        :raises ConfigurationError: a file is missing or malformed.
        """
        from xenpool_driver import conf as config
        from xenpool_driver.compute import logs

        conf = config.load(self._files)
        self._on_secrets(logs.secrets_of(conf))
        for caution in config.cautions(conf):
            LOG.warning('%s', caution)
        return conf

    @functools.cached_property
    def hosts(self) -> dict[str, config.HostAccess]:
        """Every host that the configuration knows, by name."""
        from xenpool_driver import conf as config

        return config.known_hosts(self.conf)

    @functools.cached_property
    def store(self) -> store.Store:
        """The database.

        :raises NoDatabase: there is none, and this command does not make it.
        :raises StoreError: it cannot be used.
        """
        from xenpool_driver import store

        database = store.open_store(self.conf, create=self._create)
        self._exits.callback(database.close)
        return database

    @functools.cached_property
    def context(self) -> request_context.RequestContext:
        """The request's context: the id that its operations carry."""
        from oslo_context import context as request_context

        return request_context.RequestContext()

    def api(
        self, remote: bool = False, create: bool = False
    ) -> aggregates.AggregateAPI:
        """Return what can be asked of aggregates.

        The bus is set up here, in the main thread: oslo.messaging imports
        eventlet where that is installed, and a thread that imports it can
        never be joined.

        :param remote: have the services on the bus do it.
        :param create: whether an SQLite file is created where there is none.
            Only who makes an aggregate asks for it: a misspelt path shall
            not look like a database without aggregates.
        :raises ConfigurationError: what they need is not installed, or
            ``transport_url`` is none.
        """
        from xenpool_driver.compute import aggregates

        self._create = create
        bus = self._remote if remote else None

        return aggregates.AggregateAPI(
            self.conf,
            self.store,
            lambda: bus or self._manager,
        )

    def require_hosts(self, names: collections.abc.Iterable[str]) -> None:
        """Check names that the user typed.

        :raises ConfigurationError: a host is named twice, or not configured.
        """
        from xenpool_driver import conf as config

        seen = set()
        for name in names:
            if name in seen:
                raise exceptions.ConfigurationError(
                    f"host '{name}' is named twice"
                )
            seen.add(name)
            config.host_access(self.conf, name)

    def close(self) -> None:
        """Close whatever was opened."""
        self._exits.close()

    @functools.cached_property
    def _manager(self) -> aggregates.Compute:
        """The manager in this process, with one driver for all hosts."""
        from xenpool_driver import base
        from xenpool_driver.compute import manager

        driver = base.load_driver(self.conf)
        close = getattr(driver, 'close', None)
        if close is not None:
            self._exits.callback(close)
        names = self.hosts or ['']
        return manager.ComputeManager(dict.fromkeys(names, driver))

    @functools.cached_property
    def _remote(self) -> aggregates.Compute:
        """The services on the bus.

        :raises ConfigurationError: what they need is not installed.
        """
        try:
            from xenpool_driver.compute import rpcapi
        except ImportError as error:
            raise exceptions.ConfigurationError(
                f"--remote needs the extra [service]: pip install "
                f"'xenpool-driver[service]' ({error.name} is missing)"
            ) from None
        return rpcapi.ComputeAPI(self.conf, self.store)
