# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Releases of the toolstack that a simulated host can pretend to be.

A profile says what a host calls itself and which of pool.join's checks its
release knows. The check identifiers are those of
:data:`xenpool_driver.simulator.prechecks.CHECKS`.
"""

from __future__ import annotations

import collections.abc
import dataclasses

_SINCE_8_3 = frozenset({'5', '11', '28', '29', '31', '32', '33'})
"""Checks that 1.249 (XCP-ng 8.2) does not know."""

_SINCE_26_13 = frozenset({'30'})
"""Checks of trusted certificates, new in 26.13."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """One release.

    :param name: what ``--version-profile`` takes.
    :param product_brand: XenServer or XCP-ng.
    :param api: major and minor version of the API.
    :param unknown_checks: identifiers of pool.join's checks that this
        release does not make.
    :param homogeneity_key: what check 13 compares of software_version
        (platform_version before 22.13).
    :param tls: whether hosts verify each other's certificates.
    :param bundle_check: whether a joiner insists on finding the
        coordinator's certificate in the pool's bundle (26.16).
    :param two_sided_eject: whether the coordinator deletes the record of an
        ejected host (1.313); before, the ejected host did.
    :param guarded: whether eject and designate are pool operations (1.270
        and 1.316).
    """

    name: str
    product_brand: str
    product_version: str
    platform_version: str
    xapi: str
    build_number: str
    xen: str
    linux: str
    api: tuple[int, int]
    db_schema: str
    editions: tuple[str, ...]
    unknown_checks: frozenset[str] = frozenset()
    homogeneity_key: str = 'xapi'
    tls: bool = True
    bundle_check: bool = True
    two_sided_eject: bool = True
    guarded: bool = True

    @property
    def software_version(self) -> dict[str, str]:
        """What a host of this release says in host.software_version."""
        major, minor = self.product_version.split('.')[:2]
        return {
            'product_version': self.product_version,
            'product_version_text': f'{major}.{minor}',
            'product_version_text_short': f'{major}.{minor}',
            'platform_name': 'XCP',
            'platform_version': self.platform_version,
            'product_brand': self.product_brand,
            'build_number': self.build_number,
            'git_id': '0',
            'hostname': 'localhost',
            'date': '20260821T00:00:00Z',
            'dbv': '0.0.1',
            'xapi': '.'.join(self.xapi.split('.')[:2]),
            'xapi_build': self.xapi,
            'xen': self.xen,
            'linux': self.linux,
            'xencenter_min': '2.21',
            'xencenter_max': '2.21',
            'network_backend': 'openvswitch',
            'db_schema': self.db_schema,
        }


CURRENT = Profile(
    name='current',
    product_brand='XenServer',
    product_version='8.4.0',
    platform_version='3.4.0',
    xapi='26.17.0',
    build_number='cloud',
    xen='4.17.5-22',
    linux='4.19.0+1',
    api=(2, 23),
    db_schema='5.909',
    editions=('xcp-ng',),
)

XCP_NG_8_3 = Profile(
    name='xcp-ng-8.3',
    product_brand='XCP-ng',
    product_version='8.3.0',
    platform_version='3.4.0',
    xapi='26.4.0',
    build_number='cloud',
    xen='4.17.5-22',
    linux='4.19.0+1',
    api=(2, 21),
    db_schema='5.793',
    editions=('xcp-ng',),
    unknown_checks=_SINCE_26_13,
    bundle_check=False,
)

XENSERVER_8 = dataclasses.replace(
    XCP_NG_8_3,
    name='xenserver-8',
    product_brand='XenServer',
    product_version='8.4.0',
    editions=('trial', 'standard-per-socket', 'premium-per-socket'),
)

XCP_NG_8_2 = Profile(
    name='xcp-ng-8.2',
    product_brand='XCP-ng',
    product_version='8.2.1',
    platform_version='3.2.1',
    xapi='1.249.41',
    build_number='release/yangtze/master/58',
    xen='4.13.5-9',
    linux='4.19.0+1',
    api=(2, 15),
    db_schema='5.601',
    editions=('xcp-ng',),
    unknown_checks=_SINCE_8_3 | _SINCE_26_13,
    homogeneity_key='platform_version',
    tls=False,
    bundle_check=False,
    two_sided_eject=False,
    guarded=False,
)

PROFILES: collections.abc.Mapping[str, Profile] = {
    profile.name: profile
    for profile in (CURRENT, XCP_NG_8_3, XENSERVER_8, XCP_NG_8_2)
}
"""What ``--version-profile`` may name."""


def get(name: str) -> Profile:
    """Return the profile called ``name``.

    :raises ValueError: naming the ones that exist.
    """
    if name not in PROFILES:
        known = ', '.join(sorted(PROFILES))
        raise ValueError(f'no version profile {name!r}; there are: {known}')
    return PROFILES[name]
