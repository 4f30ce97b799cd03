# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The modules whose messages are simulated by hand."""

from __future__ import annotations

from xenpool_driver.simulator import (
    eject,
    ha,
    hosts,
    join,
    master,
    networking,
    storage,
    vms,
)

MODULES = (eject, ha, hosts, join, master, networking, storage, vms)
"""Importing this file registers the messages of all of them."""
