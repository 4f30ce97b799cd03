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
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import urllib.parse

from oslo_config import cfg

from xenpool_driver import exceptions

DEFAULT_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        'enabled_hosts',
        default=[],
        help='Names of the hosts that this service owns. Each has a section '
        'of the same name in this file.',
    ),
]

XENPOOL_GROUP = cfg.OptGroup('xenpool', title='The pool driver')

XENPOOL_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'compute_driver',
        default='xenapi',
        help='Name of the plug-in, in the namespace xenpool.compute_drivers, '
        'that carries out aggregate operations.',
    ),
    cfg.IntOpt(
        'failure_threshold',
        default=3,
        min=1,
        help='How many requests in a row may fail before an active aggregate '
        'becomes an error. An error is irreversible.',
    ),
    cfg.FloatOpt(
        'join_timeout',
        default=600.0,
        min=1,
        help='Seconds to wait until a joined host is live and enabled in its '
        'pool. When they are over, the request has failed.',
    ),
    cfg.FloatOpt(
        'eject_timeout',
        default=300.0,
        min=1,
        help="Seconds to wait until an ejected host's record is gone from "
        'the pool.',
    ),
    cfg.FloatOpt(
        'first_boot_timeout',
        default=1200.0,
        min=1,
        help='Seconds to wait, when asked to, until an ejected host is back '
        'as a pool of its own. It reboots and reinstalls its local storage.',
    ),
    cfg.FloatOpt(
        'master_change_timeout',
        default=300.0,
        min=1,
        help='Seconds to wait until every member names the new master and is '
        'enabled again.',
    ),
    cfg.FloatOpt(
        'drain_timeout',
        default=3600.0,
        min=1,
        help='Seconds to wait until the virtual machines of a host that is '
        'drained have moved away.',
    ),
    cfg.FloatOpt(
        'poll_interval',
        default=1.0,
        min=0.01,
        help='Seconds between two looks at XAPI while waiting.',
    ),
    cfg.FloatOpt(
        'probe_timeout',
        default=5.0,
        min=0.1,
        help='Seconds that one member has to answer when the master is '
        'looked for. All members are asked at the same time.',
    ),
    cfg.FloatOpt(
        'lease_duration',
        default=60.0,
        min=0.5,
        help='Seconds after which an operation whose worker has died may be '
        'taken over. A living worker renews its lease in the background.',
    ),
    cfg.IntOpt(
        'max_parallel_joins',
        default=8,
        min=1,
        max=64,
        help='How many hosts join at the same time when one request names '
        'several.',
    ),
    cfg.BoolOpt(
        'allow_data_loss',
        default=False,
        help='Whether hosts may be ejected although their local disks hold '
        'data, which an eject wipes. A request can also allow it itself.',
    ),
    cfg.FloatOpt(
        'preflight_plugin_timeout',
        default=10.0,
        min=0.1,
        help='Seconds that one site rule (namespace xenpool.preflight_checks) '
        'has to answer before its finding is "unknown".',
    ),
]

HOST_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'connection_url',
        help='Where the host answers XAPI calls, for example '
        'https://192.0.2.11. http:// sends the password in clear text.',
    ),
    cfg.StrOpt(
        'connection_username',
        default='root',
        help='Who logs in. The role pool-operator is enough.',
    ),
    cfg.StrOpt(
        'connection_password',
        secret=True,
        help='The password. After a join it is the password of the pool '
        'that holds: keep the sections of one pool equal.',
    ),
    cfg.FloatOpt(
        'connect_timeout',
        default=10.0,
        min=0.1,
        help='Seconds to wait for a connection.',
    ),
    cfg.FloatOpt(
        'read_timeout',
        default=60.0,
        min=0.1,
        help='Seconds to wait for the answer to a call.',
    ),
    cfg.StrOpt(
        'ca_file',
        help='File of CA certificates (PEM) that vouch for the host. Without '
        'it the CAs of the system do.',
    ),
    cfg.StrOpt(
        'certificate_fingerprint',
        help='SHA-256 fingerprint of the one certificate that the host may '
        'show, as hexadecimal digits with or without colons. It is trusted '
        'instead of any CA. Get it with: openssl s_client -connect HOST:443 '
        '</dev/null | openssl x509 -noout -fingerprint -sha256',
    ),
    cfg.BoolOpt(
        'insecure',
        default=False,
        help='Do not verify the certificate at all. Whoever sits between can '
        'read the password; a warning is logged at start.',
    ),
    cfg.StrOpt(
        'compute_vm_uuid',
        help='The uuid of the guest on this host in which the compute '
        'service runs, if it does. It is shut down before the host joins a '
        'pool and started afterwards, by the service of the master.',
    ),
]
"""The options of a host's section; the section has the host's name."""

DATABASE_GROUP = cfg.OptGroup('database', title='What must survive')

DATABASE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'connection',
        secret=True,
        help='SQLAlchemy URL of the database. Default: an SQLite file in the '
        'state directory of the user ($XDG_STATE_HOME/xenpool/xenpool.db).',
    ),
    cfg.FloatOpt(
        'busy_timeout',
        default=30.0,
        min=0,
        help='Seconds to wait for a lock that another worker holds.',
    ),
]

SIMULATOR_GROUP = cfg.OptGroup('simulator', title='The simulator')

SIMULATOR_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'address',
        default='127.0.0.11',
        help='Loopback address of the first simulated host; the others take '
        'the next ones.',
    ),
    cfg.PortOpt('port', default=8443, help='The HTTPS port of every host.'),
    cfg.PortOpt(
        'http_port', default=8080, help='The HTTP port of every host.'
    ),
    cfg.StrOpt(
        'password',
        default='xenroot',
        secret=True,
        help="The password of every simulated host's root.",
    ),
    cfg.FloatOpt(
        'time_scale',
        default=1.0,
        min=0.001,
        help='How many simulated seconds pass in one real second.',
    ),
]


@dataclasses.dataclass(frozen=True)
class HostAccess:
    """How one host is reached.

    :ivar name: the compute host name, which is its section's name.
    :ivar url: scheme, address and port, without a path.
    :ivar username: who logs in.
    :ivar password: the secret; never shown by repr.
    :ivar connect_timeout: seconds.
    :ivar read_timeout: seconds.
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
    conf.register_opts(DEFAULT_OPTS)
    for group, opts in (
        (XENPOOL_GROUP, XENPOOL_OPTS),
        (DATABASE_GROUP, DATABASE_OPTS),
        (SIMULATOR_GROUP, SIMULATOR_OPTS),
    ):
        conf.register_group(group)
        conf.register_opts(opts, group=group)


def list_opts() -> list[tuple[str | cfg.OptGroup, list[cfg.Opt]]]:
    """Return all options for oslo-config-generator."""
    return [
        ('DEFAULT', DEFAULT_OPTS),
        (XENPOOL_GROUP, XENPOOL_OPTS),
        (DATABASE_GROUP, DATABASE_OPTS),
        (SIMULATOR_GROUP, SIMULATOR_OPTS),
        (cfg.OptGroup('xen01', title='One host; its name'), HOST_OPTS),
    ]


def load(
    files: collections.abc.Sequence[str] | None = None,
) -> cfg.ConfigOpts:
    """Return the options, read from files.

    :param files: configuration files, later ones win. None looks for
        ``xenpool.conf`` in the places where oslo.config looks.
    :raises ConfigurationError: a file is missing or malformed.
    """
    conf = cfg.ConfigOpts()
    register_opts(conf)
    try:
        conf(args=[], project='xenpool', default_config_files=files)
    except cfg.ConfigFilesNotFoundError as error:
        raise exceptions.ConfigurationError(
            f"configuration file not found: {', '.join(error.config_files)}"
        ) from None
    except (cfg.ConfigFileParseError, cfg.ConfigFileValueError) as error:
        raise exceptions.ConfigurationError(str(error)) from None
    return conf


def host_access(conf: cfg.ConfigOpts, name: str) -> HostAccess:
    """Return how the host called ``name`` is reached.

    :param conf: the options, read.
    :param name: the compute host name; its section has the same name.
    :raises ConfigurationError: the section, its URL or its password is
        missing, or a value makes no sense.
    """
    group = cfg.OptGroup(name)
    try:
        conf.register_opts(HOST_OPTS, group=group)
        section = conf[name]
        url, password = section.connection_url, section.connection_password
        fingerprint = section.certificate_fingerprint
    except (cfg.Error, ValueError, AttributeError) as error:
        raise exceptions.ConfigurationError(
            f"section [{name}]: {error}"
        ) from None
    if not url:
        raise exceptions.ConfigurationError(
            f"host '{name}' is unknown: no section [{name}] with a "
            f"connection_url in the configuration"
        )
    if not password:
        raise exceptions.ConfigurationError(
            f"section [{name}]: connection_password is missing"
        )
    return HostAccess(
        name=name,
        url=_checked_url(name, url),
        username=section.connection_username,
        password=password,
        connect_timeout=section.connect_timeout,
        read_timeout=section.read_timeout,
        ca_file=section.ca_file,
        fingerprint=_checked_fingerprint(name, fingerprint),
        insecure=section.insecure,
        compute_vm_uuid=section.compute_vm_uuid,
    )


def known_hosts(conf: cfg.ConfigOpts) -> dict[str, HostAccess]:
    """Return every host that the configuration knows, by name.

    These are the enabled ones first, then each other section that holds a
    ``connection_url``: members of the same pools that another service owns.

    :raises ConfigurationError: a section is incomplete.
    """
    names = list(dict.fromkeys(conf.enabled_hosts))
    ours = {'DEFAULT'} | {str(group) for group in conf}
    for section in _sections(conf):
        if section not in names and section not in ours:
            names.append(section)
    return {name: host_access(conf, name) for name in names}


def _sections(conf: cfg.ConfigOpts) -> list[str]:
    """Return the file sections that hold a connection_url."""
    found = []
    for section in conf.list_all_sections():
        values = conf._namespace  # no public way to read unregistered ones
        if values is None:
            break
        try:
            values._get_value([(section, 'connection_url')])
        except KeyError:
            continue
        found.append(section)
    return found


def _checked_url(name: str, url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in ('http', 'https')
        or not parts.hostname
        or port == -1
        or parts.path.strip('/')
        or parts.username
    ):
        raise exceptions.ConfigurationError(
            f"section [{name}]: connection_url must be "
            f"https://ADDRESS[:PORT], without user, password or path"
        )
    return f"{parts.scheme}://{parts.netloc}"


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
