# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Every option, as literals: name, default, bounds, help with units."""

from __future__ import annotations

from oslo_config import cfg

from xenpool_driver.conf import numbers

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
    numbers.seconds(
        'join_timeout',
        default=600.0,
        least=1,
        help='Seconds to wait until a joined host is live and enabled in its '
        'pool. When they are over, the request has failed.',
    ),
    numbers.seconds(
        'stuck_join_timeout',
        default=60.0,
        least=0,
        help='Seconds for which a host that joins must have answered '
        'HOST_STILL_BOOTING without a break, while the master has its '
        'control domain halted and on no host. Then it will never be ready: '
        'the request fails, and says the way out. With join_timeout or more '
        'it fails only when that is over.',
    ),
    numbers.seconds(
        'eject_timeout',
        default=300.0,
        least=1,
        help="Seconds to wait until an ejected host's record is gone from "
        'the pool.',
    ),
    numbers.seconds(
        'first_boot_timeout',
        default=1200.0,
        least=1,
        help='Seconds to wait, when asked to, until an ejected host is back '
        'as a pool of its own. It reboots and reinstalls its local storage.',
    ),
    numbers.seconds(
        'master_change_timeout',
        default=300.0,
        least=1,
        help='Seconds to wait until every member names the new master and is '
        'enabled again.',
    ),
    numbers.seconds(
        'drain_timeout',
        default=3600.0,
        least=1,
        help='Seconds to wait until the virtual machines of a host that is '
        'drained have moved away.',
    ),
    numbers.seconds(
        'poll_interval',
        default=1.0,
        least=0.01,
        help='Seconds between two looks at XAPI while waiting.',
    ),
    numbers.seconds(
        'probe_timeout',
        default=5.0,
        least=0.1,
        help='Seconds that one member has to answer when the master is '
        'looked for. All members are asked at the same time.',
    ),
    numbers.seconds(
        'lease_duration',
        default=60.0,
        least=0.5,
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
    cfg.BoolOpt(
        'watch_pools',
        default=False,
        help='Whether this service follows the pools of all aggregates, logs '
        'what changes in them, and records a master that has moved. One '
        'service of them all is enough.',
    ),
    numbers.seconds(
        'preflight_plugin_timeout',
        default=10.0,
        least=0.1,
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
        help='The password; write $$ for a $ in it (\\$ behind a backslash), '
        'and put it into quotes if it has quotes or blanks at its ends: they '
        'are taken off. After a join it is the password of the pool that '
        'holds: keep the sections of one pool equal.',
    ),
    numbers.seconds(
        'connect_timeout',
        default=10.0,
        least=0.1,
        help='Seconds to wait for a connection.',
    ),
    numbers.seconds(
        'read_timeout',
        default=60.0,
        least=0.1,
        help='Seconds to wait for the answer to a call.',
    ),
    cfg.IntOpt(
        'max_reply_mib',
        default=256,
        min=1,
        max=4096,
        help='MiB that one answer of the host may have; a larger one is an '
        'error. The records of a pool of 64 hosts have a few MiB.',
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
    numbers.seconds(
        'busy_timeout',
        default=30.0,
        least=0,
        help='Seconds to wait for a lock that another worker holds. A server '
        'that says nothing for 10 seconds longer is given up: the request '
        'ends with an error.',
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
    numbers.opt(
        'time_scale',
        default=1.0,
        least=0.001,
        most=100000,
        help='How many simulated seconds pass in one real second.',
    ),
]
