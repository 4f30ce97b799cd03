# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Host aggregates for XenServer and XCP-ng resource pools."""

# The modules that other programs may rely on; the rest is ours to change.
__all__ = ['base', 'conf', 'exceptions', 'model', 'pool_states']
