# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Our errors, raised so that a service of another maker catches its own.

Nova's compute manager undoes what has failed when it catches
``nova.exception.AggregateError`` or ``InvalidAggregateAction``
(``nova/compute/manager.py`` 21.x, ``add_aggregate_host`` and
``remove_aggregate_host``). A class of ours with the same name is another
class, so that nothing would be undone. What leaves the driver is therefore an
instance of both: of our class, and of the service's class of the same name.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib
import types
import typing

from xenpool_driver import exceptions

REQUIRED = ('InvalidAggregateAction', 'AggregateError')
"""What a service's module must have: refused, and tried and failed."""

Theirs = type[Exception]
Method = collections.abc.Callable[..., typing.Any]


class ForeignErrors:
    """Makes errors that are both ours and a service's.

    :param module: the service's module of exceptions, or its dotted name,
        for example ``nova.exception``.
    :raises ConfigurationError: it cannot be imported, lacks a class that is
        required, or its classes cannot be made with a message.
    """

    def __init__(self, module: types.ModuleType | str) -> None:
        self._name = getattr(module, '__name__', module)
        if isinstance(module, str):
            try:
                module = importlib.import_module(module)
            except ImportError as error:
                raise exceptions.ConfigurationError(
                    f"the module of exceptions '{module}' cannot be "
                    f"imported: {error}"
                ) from error
        self._module = module
        for name in REQUIRED:
            if self._theirs(name) is None:
                raise exceptions.ConfigurationError(
                    f"the module of exceptions '{self._name}' has no "
                    f"exception class '{name}'"
                )
        self._try_out()

    def both(self, error: exceptions.XenpoolError) -> Exception:
        """Return the error as an instance of its class and of theirs.

        Theirs is the class with the name of the error's class, else with the
        name of its nearest base class. An error without any such name (the
        database cannot be reached, a host is not configured) is their
        ``AggregateError``: the request was not carried out, and their
        manager must take back what it wrote for it.
        """
        theirs = self._nearest(type(error))
        return error if isinstance(error, theirs) else joined(error, theirs)

    def guarded(self, method: Method) -> Method:
        """Return the method, which raises errors that are both."""

        @functools.wraps(method)
        def call(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            try:
                return method(*args, **kwargs)
            except exceptions.XenpoolError as error:
                made = self.both(error).with_traceback(error.__traceback__)
                raise made from error.__cause__

        return call

    def _nearest(self, kind: type[exceptions.XenpoolError]) -> Theirs:
        for base in kind.__mro__:
            if issubclass(base, exceptions.XenpoolError):
                found = self._theirs(base.__name__)
                if found is not None:
                    return found
        return typing.cast(Theirs, self._theirs('AggregateError'))

    def _theirs(self, name: str) -> Theirs | None:
        found = getattr(self._module, name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
        return None

    def _try_out(self) -> None:
        """Make one of each kind now rather than when something fails."""
        for sample in (
            exceptions.InvalidAggregateActionAdd('a', 'b'),
            exceptions.InvalidAggregateActionDelete('a', 'b'),
            exceptions.InvalidAggregateActionUpdate('a', 'b'),
            exceptions.AggregateError('a', 'b', 'c'),
        ):
            try:
                self.both(sample)
            except Exception as error:  # whatever their classes do
                raise exceptions.ConfigurationError(
                    f"the exceptions of the module '{self._name}' cannot be "
                    f"raised with a message: {type(error).__name__}: {error}"
                ) from error


def joined(error: exceptions.XenpoolError, theirs: Theirs) -> Exception:
    """Return the error as an instance of its own class and of ``theirs``.

    :param theirs: called as Nova's classes are: with the message, and with
        what Nova's messages name as keywords; or with the message only.
    """
    ours: typing.Any = type(error)
    made: typing.Any = _class_of(ours, typing.cast(typing.Any, theirs))
    found: Exception = made.__new__(made)
    make: typing.Any = theirs.__init__
    words = {
        'aggregate_id': getattr(error, 'aggregate', ''),
        'action': getattr(error, 'action', ''),
        'reason': getattr(error, 'reason', str(error)),
    }
    try:
        make(found, str(error), **words)
    except TypeError:
        make(found, str(error))
    vars(found).update(vars(error))
    found.args = (str(error),)
    return found


@functools.cache
def _class_of(ours: typing.Any, theirs: typing.Any) -> type[Exception]:
    """Return the class that is both.

    It bears their module's name: oslo.messaging sends that name, and the
    other end makes their class again.
    """

    def reduce(self: Exception) -> tuple[typing.Any, ...]:
        plain = ours.__new__(ours)
        plain.args = self.args
        vars(plain).update(vars(self))
        return joined, (plain, theirs)

    body = {
        '__module__': theirs.__module__,
        '__doc__': ours.__doc__,
        '__reduce__': reduce,
    }
    return type(theirs.__name__, (ours, theirs), body)
