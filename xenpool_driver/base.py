# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The contract between a compute service and a pool driver.

A service loads a driver with :func:`load_driver` and calls it as Nova's
compute manager called its virt driver (``nova/virt/driver.py``,
``add_to_aggregate`` and its neighbours, up to release 22).
"""

from __future__ import annotations

import abc
import collections.abc
import types
import typing

import stevedore.named
from oslo_config import cfg

from xenpool_driver import exceptions, foreign_errors, model, requests

NAMESPACE = 'xenpool.compute_drivers'
"""The stevedore namespace of pool drivers."""

SlaveInfo = typing.Mapping[str, str]
"""``{'host': compute host name, 'host_uuid': XenServer uuid,
'compute_vm_uuid': uuid of its service's guest}``: which host to act for. It
never holds a password; the receiving service has its own."""


class VirtAPI(typing.Protocol):
    """What a driver may ask of the service that loaded it."""

    def forward_add(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        master: str,
        slave_info: SlaveInfo,
        options: requests.AddHost,
    ) -> None:
        """Have ``master``'s service make the join on ``host``'s behalf.

        That service calls ``add_to_aggregate`` with the same ``slave_info``
        and each of the options.

        :param host: compute host name of the joiner.
        :param master: compute host name of the master.
        :param options: how the join was asked for.
        """


class PoolDriver(abc.ABC):
    """Turns aggregate operations into pool operations.

    Every method is idempotent: what is done already succeeds, with proof,
    and changes nothing. An aggregate that is not flagged as a pool is left
    alone, silently.

    Errors, for every method: ``InvalidAggregateAction`` (and its children)
    when the request was refused and nothing happened; ``AggregateError``
    when it was tried and failed.

    :param virtapi: callbacks into the compute service, or None. Those of
        :class:`VirtAPI` that it lacks are not used.
    :param conf: options that :func:`xenpool_driver.conf.register_opts`
        registered.
    """

    def __init__(
        self, virtapi: typing.Any = None, conf: cfg.ConfigOpts | None = None
    ) -> None:
        self.virtapi = virtapi
        self.conf = conf

    @abc.abstractmethod
    def init_host(self, host: str) -> None:
        """Start to own ``host``; settle what a dead worker left behind."""

    @abc.abstractmethod
    def add_to_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: SlaveInfo | None = None,
        *,
        force: bool = False,
        suspend_ha: bool = False,
        restore_settings: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        """Join ``host`` to the pool; the first host becomes its master.

        :param context: the request context, passed on as it is.
        :param aggregate: the aggregate; stale copies do no harm.
        :param host: compute host name of the joiner.
        :param slave_info: given when another service acts for the joiner.
        :param force: join with ``pool.join_force``.
        :param suspend_ha: switch HA off around the operation.
        :param restore_settings: put back the safe settings that the join
            lost (host other_config, tags, name, logging).
        :param progress: hears each phase.
        """

    @abc.abstractmethod
    def remove_from_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        slave_info: SlaveInfo | None = None,
        *,
        successor: str | None = None,
        allow_data_loss: bool = False,
        forget: bool = False,
        drain: bool = False,
        keep_disabled: bool = False,
        wait: bool = False,
        suspend_ha: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        """Eject ``host`` from the pool. Its local disks are wiped.

        :param successor: compute host name of the next master, when
            ``host`` is the master and others remain.
        :param allow_data_loss: go on although local disks hold data.
        :param forget: the host is dead: only forget its record, once the
            coordinator agrees that it is dead.
        :param drain: first move its virtual machines away.
        :param keep_disabled: leave the host disabled when draining fails.
        :param wait: also wait until the host is back as a pool of its own.
        """

    @abc.abstractmethod
    def undo_aggregate_operation(
        self,
        context: typing.Any,
        op: typing.Callable[[str], typing.Any],
        aggregate: model.AggregateLike,
        host: str,
        set_error: bool = True,
    ) -> None:
        """Put the caller's membership back in line with XAPI.

        :param op: ``aggregate.delete_host`` after a failed add,
            ``aggregate.add_host`` after a failed remove.
        :param set_error: whether the request that failed counts as failed.
        """

    @abc.abstractmethod
    def set_aggregate_master(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        suspend_ha: bool = False,
        progress: model.Progress | None = None,
    ) -> None:
        """Make ``host`` the master of the pool."""

    @abc.abstractmethod
    def rename_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        name: str,
    ) -> None:
        """Give the aggregate and its pool another name."""

    @abc.abstractmethod
    def dismiss_aggregate(
        self, context: typing.Any, aggregate: model.AggregateLike
    ) -> None:
        """Delete the aggregate, which has no hosts any more."""

    @abc.abstractmethod
    def release_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Let the pool go and touch no host; the aggregate ends dismissed.

        It works whatever state the pool is in, with a dead master and with
        no pool left. The aggregate's stamp is taken off the pool where its
        master answers. The hosts leave the aggregate. What a dead worker
        left behind ends as *outcome unknown*.

        :param progress: hears each phase.
        :returns: what was done, what could not be, and how to go on.
        """

    @abc.abstractmethod
    def adopt_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        replace_stamp: str | None = None,
    ) -> None:
        """Take over the pool that ``host`` belongs to, as it stands.

        The stamp of an aggregate that is dismissed in the same store is
        replaced. That of another controller refuses the adoption.

        :param replace_stamp: another controller's stamp that is replaced
            all the same, because a person says so.
        """

    @abc.abstractmethod
    def check_host(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        force: bool = False,
    ) -> model.Report:
        """Say all that speaks against adding ``host``; change nothing."""

    @abc.abstractmethod
    def check_hosts(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        hosts: collections.abc.Sequence[str],
        *,
        force: bool = False,
        suspend_ha: bool = False,
    ) -> list[model.Report]:
        """Judge the hosts of one request together; change nothing.

        :returns: a report per host, in the order of ``hosts``.
        """

    @abc.abstractmethod
    def check_removal(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        host: str,
        *,
        successor: str | None = None,
        allow_data_loss: bool = False,
        forget: bool = False,
        drain: bool = False,
        keep_disabled: bool = False,
        wait: bool = False,
        suspend_ha: bool = False,
    ) -> model.Report:
        """Say what speaks against removing ``host``, and what is lost.

        The options are those of :meth:`remove_from_aggregate`: what is
        judged is the very removal that they ask for.
        """

    @abc.abstractmethod
    def audit_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        fix: bool = False,
    ) -> model.Report:
        """Compare what the aggregate says with what XAPI says.

        :param fix: settle what touches only our own metadata, put back a lost
            stamp, and destroy the records of control domains that stuck joins
            have left.
        """

    @abc.abstractmethod
    def recover_aggregate(
        self,
        context: typing.Any,
        aggregate: model.AggregateLike,
        *,
        promote: str | None = None,
        master_is_off: bool = False,
        force: str | None = None,
        progress: model.Progress | None = None,
    ) -> model.Report:
        """Settle what dead workers left behind, by looking at XAPI.

        A pool that has lost its stamp gets it back: a member that is
        promoted may have a copy of the database from before it was stamped.

        :param promote: compute host name that shall become the master,
            because the present one is dead. Never done unasked.
        :param master_is_off: a person has switched the dead master off.
            Only members that can vote are counted then, so that a pool of
            two can be saved. Refused while anything answers at the master's
            address, and while a member can read the pool's database.
        :param force: the uuid of an operation whose worker is dead, as a
            person says. Its logins are ended and it is settled, before its
            lease has run out. Refused where a login cannot be ended, until
            nothing that the worker has sent can arrive any more.
        :param progress: hears each phase.
        """


def load_driver(
    conf: cfg.ConfigOpts,
    virtapi: typing.Any = None,
    service_exceptions: types.ModuleType | str | None = None,
) -> PoolDriver:
    """Return the driver that ``[xenpool] compute_driver`` names.

    :param conf: options that :func:`xenpool_driver.conf.register_opts`
        registered.
    :param virtapi: callbacks into the service, or None.
    :param service_exceptions: the service's module of exceptions, or its
        dotted name, for example ``nova.exception``. What the driver raises
        is then an instance of our class and of the service's class with the
        same name, so that the service's own ``except`` clauses catch it.
    :raises ConfigurationError: no such plug-in, or it fails to load, or it
        has no use for the options; or the module of exceptions lacks
        ``AggregateError`` or ``InvalidAggregateAction``.
    """
    errors = None
    if service_exceptions is not None:
        errors = foreign_errors.ForeignErrors(service_exceptions)
    driver = _plugin(conf, virtapi)
    if errors is not None:
        for method, found in vars(PoolDriver).items():
            if callable(found) and not method.startswith('_'):
                guarded = errors.guarded(getattr(driver, method))
                setattr(driver, method, guarded)
    return driver


def _plugin(conf: cfg.ConfigOpts, virtapi: typing.Any) -> PoolDriver:
    """Load the plug-in and make the driver.

    ``NamedExtensionManager`` has the same parameters in all releases of
    stevedore that services bring; ``DriverManager`` has not.
    """
    name = conf.xenpool.compute_driver

    def missing(_names: collections.abc.Iterable[str]) -> None:
        raise exceptions.ConfigurationError(
            f"[xenpool] compute_driver = {name}: no such plug-in in the "
            f"namespace {NAMESPACE}"
        )

    def failed(_manager: object, _point: object, error: BaseException) -> None:
        if isinstance(error, exceptions.XenpoolError):
            raise error
        raise exceptions.ConfigurationError(
            f"[xenpool] compute_driver = {name}: the plug-in cannot be "
            f"loaded: {type(error).__name__}: {error}"
        ) from error

    manager: typing.Any = stevedore.named.NamedExtensionManager(
        NAMESPACE,
        [name],
        invoke_on_load=True,
        invoke_kwds={'virtapi': virtapi, 'conf': conf},
        on_load_failure_callback=failed,
        on_missing_entrypoints_callback=missing,
    )
    return typing.cast(PoolDriver, manager[name].obj)
