# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The Nova-style compute service, and the manager that it is made of.

Read :mod:`~xenpool_driver.compute.aggregates` first: what a user may ask.
It asks a manager, which is either :mod:`~xenpool_driver.compute.manager` in
this process or, over the message bus, ``rpcapi`` and the ``service`` behind
it. Only ``bus``, ``rpcapi`` and ``service`` need the extra ``[service]``.
"""
