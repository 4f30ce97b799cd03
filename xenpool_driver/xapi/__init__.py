# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The only door to XAPI.

``connections`` is what the rest of the package uses: it hands out a
:class:`~xenpool_driver.xapi.client.Client` for a host. Below it ``session``
keeps one login per host, ``transport`` carries the bytes, and ``errors``
turns everything that can go wrong into the four errors of
:mod:`xenpool_driver.exceptions`.
"""
