# Licensed under the Apache License, Version 2.0; see LICENSE.
"""``python -m xenpool_driver.simulator``."""

from __future__ import annotations

import sys

from xenpool_driver.simulator import runner

if __name__ == '__main__':
    sys.exit(runner.main())
