# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``xenpool-compute``: serve aggregate requests for the hosts we own.

One process, one server per host on the bus, threads for the requests. It is
not spread over forked workers: a configuration that cannot work shall end
the process with one clear line instead of being tried for ever.
"""

from __future__ import annotations

import argparse
import collections.abc
import logging
import os
import signal
import socket
import sys
import threading
import types
import typing

from oslo_config import cfg
from oslo_log import log

from xenpool_driver import (
    base,
    clock,
    exceptions,
    model,
    redaction,
    requests,
    store,
)
from xenpool_driver import conf as config
from xenpool_driver.compute import (
    broker,
    bus,
    delivery,
    failures,
    logs,
    manager,
    rpcapi,
    virtapi,
    watcher,
)

LOG = log.getLogger(__name__)

STOP_SECONDS = 60.0
"""How long a service that shall stop waits for the requests it works on.
What is not done by then, another worker takes over when the lease ends."""

BROKER_SECONDS = 5.0
"""Pause between two looks whether a broker answers."""

Packed = dict[str, typing.Any]
Result = model.Report | list[model.Report] | None


class Endpoint:
    """Answers the messages of ``rpcapi.ComputeAPI``.

    :param compute: carries the requests out.
    :param database: where aggregates are looked up: what a message says of
        one may be stale.
    """

    def __init__(
        self, compute: manager.ComputeManager, database: store.Store
    ) -> None:
        self._compute = compute
        self._database = database
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._receiver = delivery.Receiver(database, name)

    def add_aggregate_host(
        self,
        context: typing.Any,
        aggregate: Packed,
        host: str,
        slave_info: base.SlaveInfo | None = None,
        options: Packed | None = None,
    ) -> Packed:
        """Join a host; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.add_aggregate_host(
                context,
                row,
                host,
                requests.unpack(requests.ADD_HOST, options or {}),
                slave_info,
            ),
        )

    def remove_aggregate_host(
        self,
        context: typing.Any,
        aggregate: Packed,
        host: str,
        options: Packed | None = None,
    ) -> Packed:
        """Eject a host; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.remove_aggregate_host(
                context,
                row,
                host,
                requests.unpack(requests.REMOVE_HOST, options or {}),
            ),
        )

    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: Packed,
        host: str,
        options: Packed | None = None,
    ) -> Packed:
        """Change the master; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.set_aggregate_master(
                context,
                row,
                host,
                requests.unpack(requests.SET_MASTER, options or {}),
            ),
        )

    def rename_aggregate(
        self, context: typing.Any, aggregate: Packed, name: str
    ) -> Packed:
        """Rename an aggregate; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.rename_aggregate(context, row, name),
        )

    def dismiss_aggregate(
        self, context: typing.Any, aggregate: Packed
    ) -> Packed:
        """Delete an aggregate; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.dismiss_aggregate(context, row),
        )

    def release_aggregate(
        self, context: typing.Any, aggregate: Packed
    ) -> Packed:
        """Let a pool go; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.release_aggregate(context, row),
        )

    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: Packed,
        host: str,
        replace_stamp: str | None = None,
    ) -> Packed:
        """Take a pool over; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.adopt_aggregate(
                context, row, host, replace_stamp=replace_stamp
            ),
        )

    def check_hosts(
        self,
        context: typing.Any,
        aggregate: Packed,
        hosts: list[str],
        options: Packed | None = None,
    ) -> Packed:
        """Judge hosts; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.check_hosts(
                context,
                row,
                hosts,
                requests.unpack(requests.CHECK_HOSTS, options or {}),
            ),
        )

    def check_removal(
        self,
        context: typing.Any,
        aggregate: Packed,
        host: str,
        options: Packed | None = None,
    ) -> Packed:
        """Judge a removal; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.check_removal(
                context,
                row,
                host,
                requests.unpack(requests.REMOVE_HOST, options or {}),
            ),
        )

    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: Packed,
        options: Packed | None = None,
    ) -> Packed:
        """Audit an aggregate; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.audit_aggregate(
                context, row, requests.unpack(requests.AUDIT, options or {})
            ),
        )

    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: Packed,
        options: Packed | None = None,
    ) -> Packed:
        """Settle what was left behind; see the manager."""
        return self._answer(
            context,
            aggregate,
            lambda row: self._compute.recover_aggregate(
                context, row, requests.unpack(requests.RECOVER, options or {})
            ),
        )

    def _answer(
        self,
        context: typing.Any,
        aggregate: Packed,
        work: collections.abc.Callable[[store.Aggregate], Result],
    ) -> Packed:
        """Take a request, run it, and return its result or its failure.

        :param context: says as which request it was written down.
        :param aggregate: what the message says of it.
        :param work: carries the request out, given what the database says.
        """
        try:
            self._receiver.take(context)
        except exceptions.StoreError as error:
            LOG.warning('Dropped: %s', error)
            return {'failure': failures.pack_error(error)}
        answer = self._worked(aggregate, work)
        self._receiver.end(context, answer)
        return answer

    def _worked(
        self,
        aggregate: Packed,
        work: collections.abc.Callable[[store.Aggregate], Result],
    ) -> Packed:
        """Run a request and return its result or its failure.

        :param aggregate: what the message says of it.
        :param work: carries the request out, given what the database says.
        """
        try:
            row = self._database.get_aggregate(
                aggregate['uuid'], dismissed=True
            )
            result = work(row)
        except exceptions.XenpoolError as error:
            LOG.warning('%s', error)
            return {'failure': failures.pack_error(error)}
        except Exception as error:  # a bug: told in one line, logged whole
            LOG.exception('request failed unexpectedly')
            words = f"{type(error).__name__}: {error}"
            return {
                'failure': failures.pack_error(exceptions.ServiceError(words))
            }
        if isinstance(result, list):
            return {'result': [failures.pack_report(each) for each in result]}
        return {
            'result': None if result is None else failures.pack_report(result)
        }


class ComputeService:
    """Everything that one process runs.

    :param conf: the options, read.
    :ivar hosts: the names of the hosts that it serves.
    :raises ConfigurationError: no hosts, an unknown plug-in, a bad section.
    :raises StoreError: the database cannot be used.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.enabled_hosts:
            raise exceptions.ConfigurationError(
                '[DEFAULT] enabled_hosts is empty: name the hosts that this '
                'service owns'
            )
        self.hosts = list(dict.fromkeys(conf.enabled_hosts))
        self._database = store.open_store(conf)
        self._bus = broker.connect(conf)
        remote = virtapi.ComputeVirtAPI(
            rpcapi.ComputeAPI(conf, self._database, self._bus)
        )
        # One for all hosts: so there is one login to each host.
        self._driver = base.load_driver(conf, remote)
        drivers = dict.fromkeys(self.hosts, self._driver)
        endpoint = Endpoint(manager.ComputeManager(drivers), self._database)
        self._servers = [
            bus.server(self._bus, host, endpoint) for host in self.hosts
        ]
        self._watcher: watcher.Watcher | None = None
        if conf.xenpool.watch_pools:
            self._watcher = watcher.Watcher(
                conf, self._database, watcher.log_change
            )

    def start(self) -> None:
        """Settle what dead workers left behind, then serve.

        :raises ConfigurationError: the broker refuses the login.
        """
        for host in self.hosts:
            self._driver.init_host(host)
        self._await_broker()
        for server in self._servers:
            server.start()
        if self._watcher is not None:
            self._watcher.start()

    def _await_broker(self) -> None:
        """Wait until a broker answers; say so once."""
        said = False
        while True:
            try:
                broker.assert_usable(self._bus)
                return
            except exceptions.ServiceUnavailable as error:
                if not said:
                    LOG.warning('%s; waiting for it', error)
                said = True
            clock.SYSTEM.sleep(BROKER_SECONDS)

    def stop(self) -> bool:
        """Take no more requests; wait for those that run.

        :returns: whether all of them ended in time.
        """
        if self._watcher is not None:
            self._watcher.stop()
        for server in self._servers:
            server.stop()
        waiter = threading.Thread(target=self._wait, daemon=True)
        waiter.start()
        waiter.join(STOP_SECONDS)
        ended = not waiter.is_alive()
        if ended:
            self._bus.cleanup()
            self._close()
        return ended

    def _wait(self) -> None:
        for server in self._servers:
            server.wait()

    def _close(self) -> None:
        close = getattr(self._driver, 'close', None)
        if close is not None:
            close()
        self._database.close()


def setup_logging(conf: cfg.ConfigOpts, debug: bool) -> None:
    """Log as the options of oslo.log say, without any password.

    :param conf: the options, read. They are read anew, since options that
        could stand on a command line cannot be registered afterwards.
    :param debug: log everything.
    """
    conf.clear()
    log.register_options(conf)
    conf(
        args=[],
        default_config_files=conf.default_config_files,
        default_config_dirs=[],
    )
    if debug:
        conf.set_override('debug', True)
    if not (conf.log_file or conf.log_dir):
        conf.set_default('use_stderr', True)
    log.setup(conf, 'xenpool')
    bus.register_opts(conf)
    mask = logs.Mask(logs.secrets_of(conf))
    for handler in logging.getLogger().handlers:
        handler.addFilter(mask)
    for caution in config.cautions(conf):
        LOG.warning('%s', caution)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what stands on the command line."""
    parser = argparse.ArgumentParser(
        prog='xenpool-compute',
        description='Serve aggregate requests for the enabled hosts.',
    )
    parser.add_argument(
        '--config-file',
        action='append',
        metavar='FILE',
        help='configuration file; repeatable, later ones win '
        '(default: xenpool.conf in the usual places)',
    )
    parser.add_argument('--debug', action='store_true', help='log everything')
    return parser.parse_args(argv)


def _complain(error: Exception) -> None:
    """Print an error as a terminal may be shown it, without a password."""
    shown = redaction.visible(redaction.hide_fields(str(error)))
    print(f"xenpool-compute: {shown}", file=sys.stderr)


def serve(conf: cfg.ConfigOpts) -> int:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once.

    So does the first one while there is nothing to finish yet: starting may
    take for ever where no broker answers.

    :returns: the exit status.
    """
    serving = threading.Event()
    ask_to_stop = threading.Event()

    def on_signal(number: int, _frame: types.FrameType | None) -> None:
        if ask_to_stop.is_set() or not serving.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        ask_to_stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    service = ComputeService(conf)
    service.start()
    serving.set()
    LOG.info('Serving %s', ', '.join(service.hosts))
    ask_to_stop.wait()
    LOG.info('Stopping')
    return 0 if service.stop() else 1


def main(argv: list[str] | None = None) -> int:
    """Run the service.

    :returns: 0 stopped cleanly, 1 failed, 2 the configuration is wrong.
    """
    arguments = parse_arguments(argv)
    try:
        conf = config.load(arguments.config_file)
        setup_logging(conf, arguments.debug)
        return serve(conf)
    except exceptions.ConfigurationError as error:
        _complain(error)
        return 2
    except exceptions.XenpoolError as error:
        _complain(error)
        return 1


if __name__ == '__main__':
    sys.exit(main())
