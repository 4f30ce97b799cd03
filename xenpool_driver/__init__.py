# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Host aggregates for XenServer and XCP-ng resource pools."""
