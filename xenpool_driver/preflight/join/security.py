# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Logins, directories, certificates, clocks."""

from __future__ import annotations

import shlex
import typing

from xenpool_driver import findings, objects, snapshot
from xenpool_driver.preflight import check
from xenpool_driver.preflight.join import case as cases

_CLOCK_TOLERANCE = 2.0
"""Seconds of difference between two clocks that are still harmless."""

_SOON = 30 * 86400.0
"""Seconds before its end when a certificate is worth a warning."""


def pool_login(case: cases.JoinCase) -> check.Problems:
    """7.1: the joiner logs in to the coordinator before anything else."""
    answer = case.live.pool_login
    member = _addressed_member(case)
    if member is not None:
        yield check.Problem(
            f"at {case.address} answers {member.name}, a member of the pool; "
            f"a join needs its coordinator {case.master.name}",
            f"use {case.master.address}",
            ('HOST_IS_SLAVE', case.master.address),
            findings.at_fault(member),
        )
        return
    if answer is None:
        yield check.undecided(
            "whether the pool's credentials are right, and what answers at "
            "its address, shows in no record (undecided offline)",
            _asking(case),
        )
    elif answer:
        yield check.Problem(
            f"logging in to the pool {case.pool.name} failed: "
            f"{' '.join(answer)}",
            'correct connection_url, connection_username and '
            'connection_password of the master in the configuration',
            answer,
        )


def _addressed_member(case: cases.JoinCase) -> objects.Host | None:
    """Return the member, not coordinator, at the address to hand over."""
    return next(
        (
            host
            for host in case.pool.hosts.values()
            if case.address
            and host.address == case.address
            and host is not case.pool.coordinator
        ),
        None,
    )


def joiner_login(case: cases.JoinCase) -> check.Problems:
    """The other end: without it there is nobody to call."""
    answer = case.live.joiner_login
    if answer is None:
        yield check.undecided(
            "whether the joiner's credentials are right shows in no record "
            "(undecided offline)",
            _asking(case),
        )
    elif answer:
        yield check.Problem(
            f"logging in to the joiner failed: {' '.join(answer)}",
            'correct connection_url, connection_username and '
            'connection_password of the host in the configuration',
        )


def _asking(case: cases.JoinCase) -> str:
    """Return the command that asks the hosts what no record tells."""
    if case.pool.aggregate:
        name = shlex.quote(case.pool.aggregate)
        return f"xenpool aggregate check {name} {case.me.typed}"
    return (
        'check it against the living hosts with aggregate check; the '
        'aggregates are told by: xenpool aggregate list'
    )


def external_auth(case: cases.JoinCase) -> check.Problems:
    """Rule 20: ``assert_external_auth_matches``."""
    me, master = case.me, case.master
    if (
        me.external_auth_type == master.external_auth_type
        and me.external_auth_service_name.lower()
        == master.external_auth_service_name.lower()
    ):
        return
    yield check.Problem(
        f"{me.name} takes its users from {_directory(me)}, the pool from "
        f"{_directory(master)}",
        _directory_of_pool(case),
        ('POOL_JOINING_EXTERNAL_AUTH_MISMATCH',),
        findings.at_fault(me, master),
    )


def _directory_of_pool(case: cases.JoinCase) -> str:
    """Return how the joiner takes its users from where the pool does."""
    if not case.master.external_auth_type:
        uuid = case.my_pool.uuid
        return f"on {case.me.name}: xe pool-disable-external-auth uuid={uuid}"
    return (
        f"let {case.me.name} join {_directory(case.master)}, which takes an "
        f"account of the directory; the settings are told on "
        f"{case.master.name} by: xe host-list params=external-auth-type,"
        f"external-auth-service-name,external-auth-configuration"
    )


def _directory(host: objects.Host) -> str:
    if not host.external_auth_type:
        return 'no directory'
    return f"{host.external_auth_type} {host.external_auth_service_name}"


def tls_verification(case: cases.JoinCase) -> check.Problems:
    """Rule 28: ``assert_tls_verification_matches``."""
    mine = case.my_pool.tls_verification_enabled
    theirs = case.their_pool.tls_verification_enabled
    if mine != theirs:
        lagging = case.master.name if mine else case.me.name
        yield check.Problem(
            f"TLS verification is {_onoff(mine)} on {case.me.name} and "
            f"{_onoff(theirs)} in the pool {case.pool.name}",
            f"on {lagging}: xe pool-enable-tls-verification (a freshly "
            f"installed or ejected host does it by itself at the end of its "
            f"first boot)",
            ('POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH',),
            findings.at_fault(case.my_pool, name=case.me.name)
            + findings.at_fault(case.their_pool, name=case.pool.name),
        )


def _onoff(flag: bool) -> str:
    return 'on' if flag else 'off'


def ca_certificates(case: cases.JoinCase) -> check.Problems:
    """Rule 29: ``assert_legacy_ca_certificates_compatible``."""
    mine, theirs = (
        {
            cert.name: cert
            for cert in records.certificates.values()
            if cert.type == 'ca' and cert.name
        }
        for records in (case.joiner, case.pool)
    )
    names = [
        name
        for name in sorted(mine.keys() & theirs.keys())
        if mine[name].fingerprint != theirs[name].fingerprint
    ]
    if names:
        yield check.Problem(
            f"{case.me.name} and the pool hold different CA certificates "
            f"under the same name: {findings.listed(names)}",
            f"on {case.me.name}: "
            + findings.in_order(
                f"xe pool-uninstall-ca-certificate name={name}"
                for name in names
            ),
            (
                'POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT',
                *reversed(names),
            ),
            findings.at_fault(
                *(side[name] for name in names for side in (mine, theirs))
            ),
        )


def trusted_certificates(case: cases.JoinCase) -> check.Problems:
    """Rule 30: ``assert_trusted_certificates_compatible``."""
    mine, theirs = _trusted(case.joiner), _trusted(case.pool)
    for fingerprint in sorted(mine.keys() & theirs.keys()):
        local, remote = mine[fingerprint], theirs[fingerprint]
        common = set(local.purpose) & set(remote.purpose)
        if set(local.purpose) == set(remote.purpose) or not common:
            continue
        yield check.Problem(
            f"{case.me.name} and the pool trust the same certificate for "
            f"different purposes: {', '.join(local.purpose)} against "
            f"{', '.join(remote.purpose)} ({fingerprint})",
            f"on {case.me.name}: xe pool-uninstall-trusted-certificate "
            f"certificate-uuid={local.uuid}",
            (
                'POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT',
                remote.ref,
                local.ref,
            ),
            findings.at_fault(remote, local, name=fingerprint),
        )


def _trusted(
    records: snapshot.PoolSnapshot,
) -> dict[str, objects.Certificate]:
    return {
        cert.fingerprint: cert
        for cert in records.certificates.values()
        if cert.type in ('ca', 'pinned') and not cert.name
    }


def pool_bundle(case: cases.JoinCase) -> check.Problems:
    """7.3: the coordinator hands out a bundle with its own certificate.

    A pool where TLS verification was never enabled has none in it, and the
    joiner asks for it. ``xe pool-certificate-sync`` mends it too, but shows
    nowhere.
    """
    off = not (
        case.my_pool.tls_verification_enabled
        or case.their_pool.tls_verification_enabled
    )
    if off:
        yield check.Problem(
            f"TLS verification was never enabled in the pool "
            f"{case.pool.name}, so that the certificate of its coordinator "
            f"{case.master.name} is not in the pool's bundle",
            f"on {case.master.name} and on {case.me.name}: "
            f"xe pool-enable-tls-verification",
            (
                'POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE',
                case.master.uuid,
            ),
            findings.at_fault(case.master, case.me),
        )


def certificates(case: cases.JoinCase) -> check.Problems:
    """Certificates that are over, or not valid yet, break what follows.

    The hosts judge them by their own clocks, which :func:`clocks` compares.
    """
    if case.now is None:
        return
    for host, records in ((case.me, case.joiner), (case.master, case.pool)):
        now = case.now + (records.clock_offset or 0.0)
        for cert in records.certificates.values():
            if cert.host == host.ref:
                yield from _validity(now, host, cert)


def _validity(
    now: float, host: objects.Host, cert: objects.Certificate
) -> check.Problems:
    """Judge one certificate.

    :param now: what the clock of the host says, where it is known.
    """
    what = f"the certificate ({cert.type}) of {host.name}"
    remedy = f"on {host.name}: {findings.renewing(cert, host)}"
    at_fault = findings.at_fault(cert, name=host.name)
    if cert.not_before is not None and cert.not_before > now:
        yield check.warning(
            f"{what} is not valid yet", f"set the clocks; {remedy}", at_fault
        )
    if cert.not_after is None:
        return
    if cert.not_after <= now:
        yield check.warning(f"{what} has expired", remedy, at_fault)
    elif cert.not_after - now < _SOON:
        days = int((cert.not_after - now) / 86400)
        left = findings.counted(days, 'day')
        yield check.warning(f"{what} expires in {left}", remedy, at_fault)


def clocks(case: cases.JoinCase) -> check.Problems:
    """Every manual asks for equal clocks; nobody compares them."""
    mine, theirs = case.joiner.clock_offset, case.pool.clock_offset
    if mine is None or theirs is None:
        yield check.undecided(
            'the clocks of joiner and pool were not compared (undecided '
            'offline)',
            _asking(case),
        )
        return
    yield from _clock_gap(case, mine - theirs)


def _clock_gap(
    case: cases.JoinCase, gap: float
) -> typing.Iterator[check.Problem]:
    if abs(gap) > _CLOCK_TOLERANCE:
        yield check.warning(
            f"the clock of {case.me.name} is {abs(gap):.1f} s "
            f"{'ahead of' if gap > 0 else 'behind'} that of "
            f"{case.master.name}",
            f"on {case.me.name}: chronyc makestep (and give both the same "
            f"time servers)",
            findings.at_fault(case.me, case.master),
        )
