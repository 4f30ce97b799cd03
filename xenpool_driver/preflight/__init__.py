# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Everything that speaks against a pool operation, said before it is tried.

XAPI runs its own asserts in order and raises the first that fails, mostly
without naming the object at fault. Here all of them run, over snapshots,
without touching anything.
"""
