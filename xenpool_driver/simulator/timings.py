# Licensed under the Apache License, Version 2.0; see LICENSE.
"""How long things take in the simulated world, in simulated seconds.

The figures were read off the recorded timelines of a real toolstack; what
matters is the order of events that they produce. All of them can be
replaced: a world takes any :class:`Timings`.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timings:
    """Durations, each in simulated seconds."""

    fuse: float = 10.0
    """From the answer of join, eject or designate to the toolstack's end."""
    restart: float = 1.0
    """From the end of a toolstack to the start of the next."""
    shutdown: float = 10.0
    """From the answer of host.reboot or host.shutdown to the machine's end."""
    boot: float = 2.2
    """A machine's way from being switched on to its toolstack's start."""
    reboot: float = 4.4
    """A machine's way from its end to its toolstack's start."""
    restart_agent: float = 1.0
    """From the answer of host.restart_agent to the toolstack's end."""
    master_https: float = 0.45
    """A starting coordinator: port 80 is up, 443 still refuses."""
    master_enable: float = 6.5
    """A starting coordinator of several hosts: until it enables itself."""
    alone_enable: float = 0.65
    """A starting coordinator without members: until it enables itself."""
    member_db: float = 6.95
    """A starting member: calls that need the database hang."""
    member_answers: float = 0.05
    """A starting member: those calls are answered, before 443 closes."""
    member_https_gap: float = 0.45
    """A starting member: port 443 refuses again."""
    member_settle: float = 0.5
    """A starting member: from 443's return to emergency mode."""
    member_no_ip: float = 0.1
    """A starting member: HOST_HAS_NO_MANAGEMENT_IP."""
    member_booting: float = 0.25
    """A starting member: HOST_STILL_BOOTING, until its hello succeeds."""
    member_enable: float = 0.5
    """A starting member: from its hello until it is enabled."""
    member_retry: float = 5.0
    """A member in emergency mode: between two tries to say hello."""
    stuck_restart: tuple[float, float] = (60.0, 180.0)
    """A member that cannot bring its records up to date: between two starts,
    at least and at most (emergency_reboot_delay in xapi_globs.ml)."""
    unknown_restart: float = 1.0
    """A member that its coordinator does not know: between two starts."""
    broken_restart: float = 60.0
    """A broken toolstack: between two starts, at least."""
    first_boot: float = 2.8
    """After an eject: from being enabled to TLS verification being set."""
    enable_tls: float = 0.2
    """After an eject: the operation that sets it."""
    demote: float = 0.8
    """A returning old coordinator: until it finds the new one and yields."""
    login: float = 0.1
    """A login at another host."""
    wrong_password: float = 1.7
    """What the password check takes to refuse."""
    precheck: float = 0.02
    """One check of pool.join."""
    joiner_certificates: float = 1.3
    """A joiner prepares for the exchange of certificates; joins overlap."""
    certificates: float = 0.13
    """The exchange itself; joins queue for it, and wait in it for members
    that are not up yet: of five that joined at once, one waited for the
    restarts of the four before it (recorded)."""
    trusted_certificates: float = 0.1
    """The exchange of trusted certificates of a join; joins queue for it."""
    before_push: float = 0.5
    """What a joiner does of its own before its records move."""
    push: float = 0.75
    """Moving a joiner's records to the coordinator."""
    eject: float = 0.6
    """pool.eject, until the record is gone."""
    designate: float = 1.0
    """pool.designate_new_master, until both phases are through."""
    recover: float = 0.1
    """One host's answer to pool.recover_slaves."""
    host_operation: float = 0.05
    """host.enable, host.disable and the like."""
    ha_round: float = 1.0
    """One of the three rounds of pool.enable_ha, per host."""
    vm_operation: float = 1.0
    """A VM's start, shutdown or plugging."""
    migration: float = 3.0
    """A VM's migration within the pool."""
    storage_operation: float = 0.2
    """Plugging or unplugging an SR."""
    forward_timeout: float = 100.0
    """A call forwarded to a dead host gives up."""
    gc_interval: float = 30.0
    """Between two passes of the garbage collector."""
    heartbeat_lost: float = 600.0
    """Silence after which a host counts as dead."""
    flush_interval: float = 300.0
    """A coordinator writes its database to disk no more often."""
    ha_failover: float = 60.0
    """With HA: from a coordinator's death to the election's end."""
    proposal_expiry: float = 600.0
    """A proposal of a new coordinator blocks others this long."""
    other_operation_retry: float = 7200.0
    """How long a call waits for another operation on the pool."""


DEFAULT = Timings()
"""As recorded."""
