# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Values on their way in and out, and the texts of XAPI's complaints."""

from __future__ import annotations

import typing
import xmlrpc.client

import hypothesis
import hypothesis.strategies as st
import pytest

from xenpool_driver.simulator import (
    datamodel,
    errors,
    filters,
    json_reader,
    values,
    wire_json,
    wire_xml,
    xml_reader,
)


def _coerce(kind: str, value: typing.Any) -> typing.Any:
    return values.coerce(datamodel.parse_type(kind), value)


@pytest.mark.parametrize(
    ('kind', 'value', 'expected'),
    [
        ('int', 5, 5),
        ('int', '5', 5),
        ('int', '0x5dc', 1500),
        ('int', '-0x10', -16),
        ('float', 1, 1.0),
        ('float', '1.5', 1.5),
        ('bool', True, True),
        ('enum host_display', 'ENABLED', 'enabled'),
        ('datetime', '20200101T00:00:00Z', '20200101T00:00:00Z'),
        ('datetime', '2020-01-01T00:00:00Z', '20200101T00:00:00Z'),
        ('string set', ['a', 'a'], ['a', 'a']),
        ('(string -> string) map', {'a': '1'}, {'a': '1'}),
    ],
)
def test_an_argument_is_what_the_data_model_demands(
    kind: str, value: typing.Any, expected: typing.Any
) -> None:
    assert _coerce(kind, value) == expected


@pytest.mark.parametrize(
    ('kind', 'value', 'text'),
    [
        ('string', 5, 'Failure("Expected string, got \'I(5)\'")'),
        ('string', None, 'Failure("Expected string, got \'N\'")'),
        (
            'string',
            [1, 'a'],
            'Failure("Expected string, got \'[I(1);S(a)]\'")',
        ),
        ('int', True, 'Failure("Expected int64, got \'B(true)\'")'),
        ('int', 1500.0, 'Failure("Expected int64, got \'F(1500)\'")'),
        ('int', 'abc', 'Failure("Int64.of_string")'),
        ('int', str(2**63), 'Failure("Int64.of_string")'),
        ('bool', 1, 'Failure("Expected bool, got \'I(1)\'")'),
        ('float', 'x', 'Failure("float_of_string")'),
        ('float', [], 'Failure("Expected float, got \'[]\'")'),
        ('enum host_display', 'purple', 'Failure("Unknown tag/contents")'),
        (
            'string set',
            'a',
            'Failure("Expecting Rpc.Enum, but found \'S(a)\'")',
        ),
        (
            '(string -> string) map',
            [],
            'Failure("Expecting Rpc.Dict, but found \'[]\'")',
        ),
        (
            'datetime',
            'rubbish',
            'Invalid argument: Clock__Date.of_iso8601: rubbish',
        ),
        ('network record', 'x', 'Failure("bad __structure")'),
    ],
)
def test_a_wrong_argument_is_refused_in_xapis_words(
    kind: str, value: typing.Any, text: str
) -> None:
    with pytest.raises(errors.ApiError) as caught:
        _coerce(kind, value)
    assert caught.value.details == ['INTERNAL_ERROR', text]


def test_a_constructor_names_the_field_that_is_missing() -> None:
    with pytest.raises(errors.ApiError) as caught:
        _coerce('network record', {'name_label': 'n'})
    assert 'Dispatcher_FieldNotFound("other_config")' in str(caught.value)


@pytest.mark.parametrize(
    ('body', 'text'),
    [
        (b'', 'Xmlm.Error(1:1, "unexpected end of input")'),
        (b'hello', 'Xmlm.Error(1:1, "expected root element")'),
        (
            b'<a><b/></a>',
            'Xmlrpc.Parse_error("open_tag(a)", "open_tag(methodCall)", _)',
        ),
        (
            b'<methodCall><methodName>x</methodName></methodCall>',
            'Xmlrpc.Parse_error("close_tag", "open_tag", _)',
        ),
        (
            b'<methodCall><methodName>x</methodName><params><param><value>'
            b'<base64>YQ==</base64></value></param></params></methodCall>',
            'Xmlrpc.Parse_error("open_tag(base64)", '
            f'"{xml_reader.EXPECTED_TYPES}", _)',
        ),
        (
            b'<methodCall><methodName>x</methodName><params><param><value>'
            b'<int>abc</int></value></param></params></methodCall>',
            'Failure("Int64.of_string")',
        ),
        (
            b'<methodCall>\n<x></y></methodCall>',
            'Xmlm.Error(2:7, "expected one of these character sequence: '
            '\\"x\\", found \\"y\\"")',
        ),
        (b'\xff\xfe<a/>', 'Xmlm.Error(1:1, "malformed character stream")'),
    ],
)
def test_what_is_no_xml_rpc_is_refused_in_xapis_words(
    body: bytes, text: str
) -> None:
    with pytest.raises(xml_reader.Malformed) as caught:
        wire_xml.parse_call(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ('body', 'text'),
    [
        (b'', 'Blank input data'),
        (b'[1', 'Unexpected end of input'),
        (b'{"a" 1}', "Expected ':' but found '1}'"),
        (b'[1 2]', "Expected ',' or ']' but found '2]'"),
        (b'5', 'Invalid request body'),
        (b'{"params":[],"id":1}', 'Required field method is missing'),
        (b'{"method":1,"params":[],"id":1}', "Invalid field 'method'"),
        (b'{"method":"a","params":[],"id":true}', "Invalid field 'id'"),
        (b'{"method":"a","params":[9223372036854775808],"id":1}', 'Int64'),
    ],
)
def test_what_is_no_json_rpc_is_refused_in_xapis_words(
    body: bytes, text: str
) -> None:
    with pytest.raises(json_reader.Malformed) as caught:
        wire_json.parse_call(body)
    assert text in str(caught.value)


def test_json_may_have_what_yojson_allows() -> None:
    body = b'{method: "m", /* so */ params: [NaN, 1e2], "id": 1} // done'
    call = wire_json.parse_call(body)
    assert call.method == 'm'
    assert call.params[1] == 100.0


_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.text(
        st.characters(codec='utf-8', exclude_characters='\r', min_codepoint=32)
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text('abc<&"', min_size=1, max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@hypothesis.given(st.lists(_VALUES, max_size=4))
def test_what_a_client_sends_is_what_is_read(
    params: list[typing.Any],
) -> None:
    sent = xmlrpc.client.dumps(tuple(params), 'class.message')
    name, read = wire_xml.parse_call(sent.encode('utf-8', 'surrogatepass'))
    assert name == 'class.message'
    assert read == params


@hypothesis.given(st.binary(max_size=200))
def test_no_body_is_too_strange_to_be_refused(body: bytes) -> None:
    for parse, refusal in (
        (wire_xml.parse_call, xml_reader.Malformed),
        (wire_json.parse_call, json_reader.Malformed),
    ):
        try:
            parse(body)
        except refusal as error:
            assert str(error)


@hypothesis.given(st.text('<>/&#;![]ax? \n"=-', max_size=60))
def test_no_markup_is_too_strange_to_be_refused(text: str) -> None:
    body = f'<methodCall><methodName>a</methodName>{text}'.encode()
    try:
        wire_xml.parse_call(body)
    except xml_reader.Malformed as error:
        assert str(error)


@pytest.mark.parametrize(
    ('number', 'xml', 'as_json'),
    [
        (0.0, '0', '0.0'),
        (1.0, '1', '1.0'),
        (0.1, '0.1', '0.1'),
        (1e20, '1e+20', '1e+20'),
        (0.1 + 0.2, '0.3', '0.30000000000000004'),
    ],
)
def test_numbers_are_written_as_ocaml_writes_them(
    number: float, xml: str, as_json: str
) -> None:
    kind = datamodel.Type('float')
    wrapped = f'<value><double>{xml}</double></value>'
    assert wire_xml.encoder(kind)(number) == wrapped
    assert wire_json.encoder(kind)(number) == as_json


@pytest.mark.parametrize(
    ('text', 'fits'),
    [
        ('true', True),
        ('false or true', True),
        ('not true and false', True),
        ('not (true) and true', False),
        ('field "hostname" = "xen"', True),
        ('"xen" = field "hostname"', True),
        ('field "enabled" = "true"', True),
        ('field "memory_overhead" = "7"', True),
        ('field "tags" = "(\'a\')"', True),
        ('field "other_config" = "((\'k\' \'v\'))"', True),
    ],
)
def test_a_filter_compares_as_the_database_writes(
    text: str, fits: bool
) -> None:
    cls = datamodel.load().classes['host']
    record = {
        'hostname': 'xen',
        'enabled': True,
        'memory_overhead': 7,
        'tags': ['a'],
        'other_config': {'k': 'v'},
    }
    assert filters.parse(cls, text)(record) is fits


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', filters.PARSE_ERROR),
        ('field "a" =', filters.PARSE_ERROR),
        ('(true', filters.PARSE_ERROR),
        ('rubbish', filters.LEX_ERROR),
        ('true rubbish', filters.LEX_ERROR),
    ],
)
def test_a_bad_filter_is_an_invalid_value(text: str, reason: str) -> None:
    with pytest.raises(errors.ApiError) as caught:
        filters.parse(datamodel.load().classes['host'], text)
    assert caught.value.details == ['INVALID_VALUE', text, reason]
