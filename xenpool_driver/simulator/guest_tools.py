# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What a running guest tells of itself (xapi_guest_agent.ml).

Every simulated guest has the tools, and they report as soon as it runs.
"""

from __future__ import annotations

from xenpool_driver.simulator import database, errors

VERSION = {'major': '9', 'minor': '4', 'micro': '0', 'build': '1'}
OS = {'name': 'Simulated Linux', 'distro': 'debian', 'major': '12'}
FEATURES = {
    'feature-suspend': '1',
    'feature-poweroff': '1',
    'feature-reboot': '1',
    'feature-shutdown': '1',
    'feature-vcpu-hotplug': '1',
}

NETWORK = '192.0.2'
"""Where guests have their addresses: reserved for documentation."""


def report(db: database.Database, vm: str) -> None:
    """Note what a guest tells that has just started.

    What it told when it ran before is forgotten.
    """
    forget(db, vm)
    record = db.get('VM', vm)
    number = record['domid'] % 254 + 1
    networks = {
        f"{db.get('VIF', vif)['device']}/ip": f'{NETWORK}.{number}'
        for vif in record['VIFs'][:1]
        if db.exists(vif, 'VIF')
    }
    told = db.create(
        'VM_guest_metrics',
        {
            'os_version': dict(OS),
            'PV_drivers_version': dict(VERSION),
            'PV_drivers_up_to_date': True,
            'PV_drivers_detected': True,
            'networks': networks,
            'other': dict(FEATURES),
            'last_updated': db.clock.iso(),
            'live': True,
            'can_use_hotplug_vbd': 'yes',
            'can_use_hotplug_vif': 'yes',
        },
    )
    db.set('VM', vm, guest_metrics=told)


def forget(db: database.Database, vm: str) -> None:
    """Forget what a guest has told."""
    told = db.get('VM', vm)['guest_metrics']
    if db.exists(told, 'VM_guest_metrics'):
        db.delete('VM_guest_metrics', told)
    db.set('VM', vm, guest_metrics=errors.NULL)
