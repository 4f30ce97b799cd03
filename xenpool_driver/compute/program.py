# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The program ``xenpool-compute``, as far as it runs without its extra."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the service, or say what it needs.

    :returns: 0 stopped cleanly, 1 failed, 2 the configuration is wrong or
        a package is missing.
    """
    try:
        from xenpool_driver.compute import service
    except ImportError as error:
        print(
            f"xenpool-compute: the service needs the extra [service]: pip "
            f"install 'xenpool-driver[service]' ({error.name} is missing)",
            file=sys.stderr,
        )
        return 2
    return service.main(argv)
