# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The options, and how they are read from oslo.config files.

Configuration is an argument: nothing here or below touches
``oslo_config.cfg.CONF``. Each host has a section of its own, named as the
compute host is, as Cinder does for its back ends::

    [DEFAULT]
    enabled_hosts = xen01, xen02

    [xen01]
    connection_url = https://192.0.2.11
    connection_password = secret

The options themselves stand in :mod:`xenpool_driver.conf.options`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import re
import typing
import urllib.parse

from oslo_config import cfg

from xenpool_driver import exceptions, redaction
from xenpool_driver.conf import cautions as conf_cautions
from xenpool_driver.conf import files as conf_files
from xenpool_driver.conf import options, strays

_GROUPS: tuple[tuple[cfg.OptGroup, list[cfg.Opt]], ...] = (
    (options.XENPOOL_GROUP, options.XENPOOL_OPTS),
    (options.DATABASE_GROUP, options.DATABASE_OPTS),
    (options.SIMULATOR_GROUP, options.SIMULATOR_OPTS),
)

_OUR_SECTIONS = {'DEFAULT'} | {group.name for group, _ in _GROUPS}

_URL_OPT = next(
    opt for opt in options.HOST_OPTS if opt.name == 'connection_url'
)


@dataclasses.dataclass(frozen=True)
class HostAccess:
    """How one host is reached.

    :ivar name: the compute host name, which is its section's name.
    :ivar url: scheme, address and port, without a path.
    :ivar username: who logs in.
    :ivar password: the secret; never shown by repr.
    :ivar connect_timeout: seconds.
    :ivar read_timeout: seconds.
    :ivar max_reply_mib: how large an answer may be.
    :ivar ca_file: PEM file of CAs, or None for the system's.
    :ivar fingerprint: SHA-256 of the certificate, lower-case hexadecimal
        without colons, or None.
    :ivar insecure: whether no certificate is verified.
    :ivar compute_vm_uuid: the guest that runs the compute service, or None.
    """

    name: str
    url: str
    username: str
    password: str = dataclasses.field(repr=False)
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_reply_mib: int = 256
    ca_file: str | None = None
    fingerprint: str | None = None
    insecure: bool = False
    compute_vm_uuid: str | None = None

    @property
    def address(self) -> str:
        """The host part of the URL: a name or an address, no brackets."""
        return urllib.parse.urlsplit(self.url).hostname or ''

    @property
    def port(self) -> int:
        """The port of the URL, the scheme's own where none is written."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.port or (80 if parts.scheme == 'http' else 443)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option but the hosts' own on ``conf``."""
    conf.register_opts(options.DEFAULT_OPTS)
    for group, opts in _GROUPS:
        # a group of its own: copies of one share their values, overrides too
        conf.register_group(cfg.OptGroup(group.name, title=group.title))
        conf.register_opts(opts, group=group.name)


def list_opts() -> list[tuple[str | cfg.OptGroup, list[cfg.Opt]]]:
    """Return all options for oslo-config-generator."""
    return [
        ('DEFAULT', options.DEFAULT_OPTS),
        *_GROUPS,
        (
            cfg.OptGroup('xen01', title='One host; its name'),
            options.HOST_OPTS,
        ),
    ]


def load(
    files: collections.abc.Sequence[str] | None = None,
) -> cfg.ConfigOpts:
    """Return the options, read from files and checked.

    :param files: configuration files, later ones win. None looks for
        ``xenpool.conf`` in the places where oslo.config looks.
    :raises ConfigurationError: a file is missing, unreadable or malformed,
        names a section or an option that does not exist, or holds a bad
        value.
    """
    conf = cfg.ConfigOpts()
    register_opts(conf)
    names = conf_files.find() if files is None else list(files)
    sections = conf_files.parse(names)
    strays.refuse(sections, {group.name: opts for group, opts in _GROUPS})
    conf(args=[], default_config_files=names, default_config_dirs=[])
    for group, opts in _GROUPS:
        for opt in opts:
            _value(conf, group.name, opt)
    return conf


def host_access(conf: cfg.ConfigOpts, name: str) -> HostAccess:
    """Return how the host called ``name`` is reached.

    :param conf: the options, read.
    :param name: the compute host name; its section has the same name.
    :raises ConfigurationError: the section, its URL or its password is
        missing, or a value makes no sense.
    """
    conf.register_opts(options.HOST_OPTS, group=cfg.OptGroup(name))
    values = {opt.dest: _value(conf, name, opt) for opt in options.HOST_OPTS}
    if not values['connection_url']:
        raise _unknown_host(conf, name)
    if not values['connection_password']:
        nothing = (
            ': nothing is left of what is written there. Quotes and blanks '
            'around a value are taken off: put a password that begins and '
            'ends with one into quotes of the other kind'
        )
        raise exceptions.ConfigurationError(
            f"section [{name}]: connection_password is missing"
            f"{nothing * (values['connection_password'] is not None)}"
        )
    return HostAccess(
        name=name,
        url=_checked_url(name, values['connection_url']),
        username=values['connection_username'],
        password=values['connection_password'],
        connect_timeout=values['connect_timeout'],
        read_timeout=values['read_timeout'],
        max_reply_mib=values['max_reply_mib'],
        ca_file=values['ca_file'],
        fingerprint=_checked_fingerprint(
            name, values['certificate_fingerprint']
        ),
        insecure=values['insecure'],
        compute_vm_uuid=values['compute_vm_uuid'],
    )


def cautions(conf: cfg.ConfigOpts) -> list[str]:
    """Return what an operator should be told at start, a line each.

    :param conf: the options, read.
    :raises ConfigurationError: the section of a host is incomplete.
    """
    passwords = {
        f"section [{access.name}]: connection_password": {access.password}
        for access in known_hosts(conf).values()
    }
    url = conf.database.connection
    passwords['section [database]: connection'] = redaction.passwords_in(url)
    if 'transport_url' in conf:
        passwords['section [DEFAULT]: transport_url'] = redaction.passwords_in(
            conf.transport_url
        )
    return [
        *conf_cautions.of_files(_files(conf), _OUR_SECTIONS),
        *conf_cautions.of_passwords(passwords),
    ]


def no_hosts(conf: cfg.ConfigOpts) -> exceptions.ConfigurationError:
    """Return the error of who needs a host where none is configured.

    :param conf: the options, read.
    """
    files = _files(conf)
    if not files:
        return exceptions.ConfigurationError(
            f"no host is configured: no {conf_files.NAME} in "
            f"{', '.join(conf_files.PLACES)}, and --config-file names none"
        )
    return exceptions.ConfigurationError(
        f"no host is configured: no section with a connection_url in "
        f"{', '.join(files)}"
    )


def _files(conf: cfg.ConfigOpts) -> list[str]:
    """Return the files that the options were read from."""
    return list(getattr(conf, 'default_config_files', None) or ())


def _unknown_host(
    conf: cfg.ConfigOpts, name: str
) -> exceptions.ConfigurationError:
    """Return the error about a host that has no section."""
    known = [each for each in conf.list_all_sections() if _is_host(conf, each)]
    if not known:
        why = str(no_hosts(conf))
    else:
        places = ', '.join(_files(conf)) or 'the configuration'
        why = f"no section [{name}] with a connection_url in {places}"
        why += strays.did_you_mean(name, known, 0.75, "'{}'")
    return exceptions.ConfigurationError(f"host '{name}' is unknown: {why}")


def known_hosts(conf: cfg.ConfigOpts) -> dict[str, HostAccess]:
    """Return every host that the configuration knows, by name.

    These are the enabled ones first, then each other section that holds a
    ``connection_url``: members of the same pools that another service owns.

    :raises ConfigurationError: a section is incomplete.
    """
    names = list(dict.fromkeys(conf.enabled_hosts))
    for section in conf.list_all_sections():
        if section not in names and _is_host(conf, section):
            names.append(section)
    return {name: host_access(conf, name) for name in names}


def _is_host(conf: cfg.ConfigOpts, section: str) -> bool:
    """Say whether the section of the file holds a connection_url."""
    if section in _OUR_SECTIONS:
        return False
    try:
        conf.register_opt(_URL_OPT, group=section)
    except cfg.DuplicateOptError:
        return False  # another program's section and option of this name
    return bool(conf[section].connection_url)


def _value(conf: cfg.ConfigOpts, section: str, opt: cfg.Opt) -> typing.Any:
    """Return one option's value.

    :raises ConfigurationError: it cannot be read; a secret is not shown.
    """
    try:
        return conf[section][opt.dest]
    except (cfg.Error, ValueError) as error:
        # oslo.config's sentence holds the repr of where the value stands
        why = str(error).rpartition('is not valid: ')[2]
        if opt.secret:
            why = 'cannot be read; write $$ for each $ in it'
    raise exceptions.ConfigurationError(
        f"section [{section}]: {opt.name}: {why}"
    )


def _checked_url(name: str, url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = (
            parts.scheme in ('http', 'https')
            and bool(parts.hostname)
            and parts.port != 0
            and '@' not in parts.netloc
            and not re.search(r'\s', url)
            and not (parts.path.strip('/') or parts.query or parts.fragment)
        )
    except ValueError:  # an odd port, or brackets that do not match
        usable = False
    if not usable:
        raise exceptions.ConfigurationError(
            f"section [{name}]: connection_url must be "
            f"https://ADDRESS[:PORT], without user, password or path"
            f"{_url_fault(url)}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _url_fault(url: str) -> str:
    """Return what is wrong with a URL, where that can be said.

    Nothing of a URL that may hold a password is repeated.
    """
    where = url.partition('://')[2].partition('/')[0]
    host, _, port = where.rpartition(':')
    if '@' in url:
        return ''
    if re.search(r'\s', url):
        return '. There is a blank in it'
    for address, suffix in ((where, ''), (host, f":{port}")):
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            continue
        return (
            f". An IPv6 address is written in brackets: "
            f"https://[{address}]{suffix}"
        )
    if port.isdigit() and host and not 0 < int(port) < 65536:
        return f". The port {port} is none: it must be from 1 to 65535"
    return ''


def _checked_fingerprint(name: str, value: str | None) -> str | None:
    if not value:
        return None
    digits = value.replace(':', '').lower()
    if not re.fullmatch('[0-9a-f]{64}', digits):
        raise exceptions.ConfigurationError(
            f"section [{name}]: certificate_fingerprint must be a SHA-256 "
            f"fingerprint, 64 hexadecimal digits"
        )
    return digits
