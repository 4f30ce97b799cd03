# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The modules whose messages are simulated by hand."""

from __future__ import annotations

from xenpool_driver.simulator import (
    drives,
    eject,
    ha,
    host_settings,
    hosts,
    join,
    master,
    networking,
    storage,
    vm_copies,
    vms,
)

MODULES = (
    drives,
    eject,
    ha,
    host_settings,
    hosts,
    join,
    master,
    networking,
    storage,
    vm_copies,
    vms,
)
"""Importing this file registers the messages of all of them."""
