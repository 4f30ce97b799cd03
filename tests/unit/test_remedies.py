# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What remedies tell operators to type exists, with those arguments.

The commands of ``xe`` and what they demand and take stand in
``ocaml/xapi-cli-server/cli_frontend.ml``. Those that work on selected hosts
or VMs take any of their fields, too; ``*-list`` and ``*-param-*`` exist for
every class.
"""

from __future__ import annotations

import pathlib
import re

import pytest

import xenpool_driver

PACKAGE = pathlib.Path(xenpool_driver.__file__).parent

COMMANDS = {
    'bond-destroy': 'uuid',
    'cluster-pool-destroy': 'cluster-uuid',
    'host-apply-edition': 'edition [host-uuid license-server-address]',
    'host-apply-updates': 'hash *',
    'host-declare-dead': 'uuid',
    'host-disable': '*',
    'host-emergency-reenable-tls-verification': '',
    'host-enable': '*',
    'host-enable-display': 'uuid',
    'host-forget': 'uuid',
    'host-management-reconfigure': 'pif-uuid',
    'host-reboot': '*',
    'host-refresh-server-certificate': 'host',
    'network-sriov-destroy': 'uuid',
    'pbd-create': 'host-uuid sr-uuid [device-config:server device-config:KEY]',
    'pbd-plug': 'uuid',
    'pbd-unplug': 'uuid',
    'pif-reconfigure-ip': 'uuid mode [IP netmask gateway DNS]',
    'pif-scan': 'host-uuid',
    'pif-set-primary-address-type': 'uuid primary_address_type',
    'pool-certificate-sync': '',
    'pool-disable-external-auth': '[uuid]',
    'pool-eject': 'host-uuid',
    'pool-emergency-reset-master': 'master-address',
    'pool-emergency-transition-to-master': '',
    'pool-enable-external-auth': 'auth-type service-name '
    '[uuid config:user config:pass]',
    'pool-enable-tls-verification': '',
    'pool-ha-disable': '',
    'pool-ha-enable': '[heartbeat-sr-uuids]',
    'pool-secret-rotate': '',
    'pool-uninstall-ca-certificate': 'name',
    'pool-uninstall-trusted-certificate': 'certificate-uuid',
    'sdn-controller-forget': 'uuid',
    'sr-forget': 'uuid',
    'task-cancel': 'uuid',
    'tunnel-destroy': 'uuid',
    'update-apply': 'uuid *',
    'vbd-unplug': 'uuid',
    'vdi-pool-migrate': 'uuid sr-uuid',
    'vlan-destroy': 'uuid',
    'vm-copy': 'new-name-label [sr-uuid] *',
    'vm-export': 'filename *',
    'vm-reset-powerstate': '*',
    'vm-resume': '*',
    'vm-shutdown': '*',
    'vm-unpause': '*',
}
"""What each demands, may have (in brackets), and ``*`` for selected ones."""

GENERIC = re.compile('[a-z-]+-(list|param-(set|get|add|remove|clear))')

TYPED = re.compile(
    r'\bxe ([a-z][a-z0-9-]*[a-z])((?: (?:--)?[A-Za-z][\w:-]*=\S*'
    r'| --[a-z]+)*)'
)


def typed() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (file, command, names of its arguments) of the sources."""
    found = set()
    for path in sorted(PACKAGE.rglob('*.py')):
        if 'simulator' in path.parts:
            continue
        text = re.sub(r"""['"]\s*\n\s*f?['"]""", '', path.read_text())
        text = re.sub(r'\{[^{}]*\}', 'X', text)
        for command, arguments in TYPED.findall(text):
            names = re.findall(
                r' ((?:--)?[A-Za-z][\w:-]*)(?==| |$)', arguments
            )
            place = str(path.relative_to(PACKAGE))
            found.add((place, command, tuple(names)))
    return sorted(found)


@pytest.mark.parametrize(('place', 'command', 'given'), typed())
def test_a_command_exists_and_takes_what_it_is_given(
    place: str, command: str, given: tuple[str, ...]
) -> None:
    if GENERIC.fullmatch(command):
        return
    assert command in COMMANDS, f'{place}: no command xe {command}'
    words = COMMANDS[command]
    optional = re.findall(r'[\w:-]+', ''.join(re.findall(r'\[.*?\]', words)))
    demanded = re.sub(r'\[.*?\]', '', words).split()
    names = {name for name in given if not name.startswith('--')}
    if '*' in demanded:
        demanded.remove('*')
        names -= {'uuid', 'host', 'vm'} - set(demanded)
    # A name alone, in the middle of a sentence, is not meant to be typed.
    assert not given or set(demanded) <= names, f'{place}: xe {command}'
    assert names <= {*demanded, *optional}, f'{place}: xe {command}'
    assert given or not demanded or command in NAMED, f'{place}: {command}'


NAMED = {
    'host-declare-dead',
    'host-forget',
    'host-refresh-server-certificate',
    'pool-eject',
    'update-apply',
}
"""Commands that some remedy only mentions."""


def test_something_was_found() -> None:
    assert len(typed()) > 30
