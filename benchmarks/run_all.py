# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Run every benchmark, one after the other.

Usage: ``python benchmarks/run_all.py [--quick]``
"""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SCRIPTS = (
    'formation',
    'calls',
    'overhead',
    'checks',
    'reads',
    'store',
    'simulator',
    'watcher',
)


def main() -> int:
    """Run them; fail if one does."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs")
    worst = 0
    for name in SCRIPTS:
        command = [sys.executable, str(HERE / f"{name}.py"), *sys.argv[1:]]
        print(
            f"\n$ python benchmarks/{' '.join([f'{name}.py', *sys.argv[1:]])}"
        )
        sys.stdout.flush()
        worst = max(worst, subprocess.call(command))
    return worst


if __name__ == '__main__':
    sys.exit(main())
