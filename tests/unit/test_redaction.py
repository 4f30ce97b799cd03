# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What is hidden, what is left alone, and what a terminal never obeys."""

from __future__ import annotations

import json
import logging
import urllib.parse
import xml.sax.saxutils

import hypothesis
import pytest
from hypothesis import strategies as st

from xenpool_driver import redaction
from xenpool_driver.compute import logs
from xenpool_driver.xapi import errors

PASSWORDS = ['$dollar$', 'a&b<c>', '100%', 'ha#sh', 'back\\slash', 'grün&ß']


@pytest.mark.parametrize('secret', PASSWORDS)
def test_a_secret_is_hidden_however_it_is_escaped(secret: str) -> None:
    for written in (
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        xml.sax.saxutils.escape(secret),
        urllib.parse.quote(secret, safe=''),
    ):
        text = f"cannot log in with {written}!"
        assert redaction.scrub(text, [secret]) == 'cannot log in with ***!'


@pytest.mark.parametrize('secret', ['', 'e', 'in', 'log'])
def test_a_short_secret_masks_no_words(secret: str) -> None:
    text = 'cannot log in at xen01'
    assert redaction.scrub(text, [secret]) == text


def test_a_short_secret_is_hidden_where_it_is_all() -> None:
    assert redaction.scrub('e', ['e']) == '***'
    peer = errors.Peer('xen01', 'https://192.0.2.1', ('e', 'ab'))
    error = errors.from_answer(
        ['SESSION_AUTHENTICATION_FAILED', 'root', 'e'], peer
    )
    assert 'SESSION_AUTHENTICATION_FAILED [root, ***]' in str(error)
    text = redaction.hide_fields("HostAccess(name='xen01', password='e')")
    assert text == "HostAccess(name='xen01', password='***')"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    for secrets in (['pass', 'password1'], ['password1', 'pass']):
        assert redaction.scrub('is password1', secrets) == 'is ***'


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('password=abc def', 'password=*** def'),
        ("connection_password = 'a b c'", "connection_password = '***'"),
        ('{"password": "it\'s \\" me"}', '{"password": "***"}'),
        ("{'adminPass': u'x y'}", "{'adminPass': u'***'}"),
        ('run --password x now', 'run --password *** now'),
        ('<password>a b</password>', '<password>***</password>'),
        ('rabbit://me:a%2Fb@one/', 'rabbit://me:***@one/'),
        (
            'rabbit://me:a/b@one,you:c:d@two/',
            'rabbit://me:***@one,you:***@two/',
        ),
        ('postgresql://me:x@[::1]/db', 'postgresql://me:***@[::1]/db'),
    ],
)
def test_what_is_called_a_password_is_hidden_whole(
    text: str, shown: str
) -> None:
    assert redaction.hide_fields(text) == shown


@pytest.mark.parametrize(
    'text',
    [
        '/etc/xenpool/password.conf: configuration file not found',
        '/srv/password=store/xenpool.conf: configuration file not found',
        '/root/password-file: Permission denied',
        "ca_file /srv/my password dir/ca.pem cannot be used",
        'section [xen01]: connection_password is missing',
        'section [xen01]: connection_password: cannot be read; write $$',
        'https://192.0.2.1:8443/ and https://192.0.2.2/',
        'sqlite:////var/lib/xenpool/passwords.db',
    ],
)
def test_words_and_paths_are_left_alone(text: str) -> None:
    assert redaction.hide_fields(text) == text


def test_the_passwords_of_a_url() -> None:
    url = 'rabbit://a:se%2Fcret@one:5672,b:other@two/'
    assert redaction.passwords_in(url) == {'se%2Fcret', 'se/cret', 'other'}
    assert redaction.passwords_in(None) == set()


@hypothesis.given(st.text(st.characters(max_codepoint=0x2070)))
def test_a_terminal_obeys_nothing(text: str) -> None:
    shown = redaction.visible(text)
    assert not any(
        character < ' ' and character != '\t' or '\x7f' <= character < '\xa0'
        for character in shown
    )
    assert not set(shown) & set('\u202a\u202e\u2066\u2069\u2028')
    assert redaction.visible(text, lines=True).count('\n') == text.count('\n')


def test_escapes_are_shown() -> None:
    assert redaction.visible('a\x1b[2Jb\r\n\x9b') == 'a\\x1b[2Jb\\r\\n\\x9b'
    assert redaction.visible('grün 日本 \t') == 'grün 日本 \t'


def test_a_log_line_holds_neither() -> None:
    record = logging.makeLogRecord(
        {'msg': 'xen01: %s', 'args': ('\x1b[31mpassw0rd\nxen02: joined',)}
    )
    logs.Mask({'passw0rd'}).filter(record)
    assert record.getMessage() == 'xen01: \\x1b[31m***\\nxen02: joined'
