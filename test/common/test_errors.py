"""Words from outside in messages."""

from __future__ import annotations

import os
import pickle

import pytest

from moving_object_detector.common.errors import ModelError, UserError, foreign, shown

PLAIN = 'Straße 5: "ok" 日本語 \\n'


def test_plain_text_stays():
    assert foreign(PLAIN) == PLAIN
    assert shown(PLAIN) == f"'{PLAIN}'"
    assert shown(3.5) == '3.5'


@pytest.mark.parametrize(
    ('text', 'escaped'),
    [
        ('a\nERROR: forged', r'a\nERROR: forged'),
        ('\x1b]0;title\x07', r'\x1b]0;title\x07'),
        ('\u009b2J', r'\x9b2J'),
        ('\u202egnp.exe', r'\u202egnp.exe'),
        ('a\u2028b\x85c\x00', r'a\u2028b\x85c\x00'),
        (os.fsdecode(b'caf\xe9'), r'caf\udce9'),
        (b'raw\xff\n', r'raw\xff\n'),
    ],
)
def test_what_is_no_plain_text_is_escaped(text, escaped):
    assert foreign(text) == escaped
    assert foreign(text).encode()  # goes to any log


def test_long_texts_are_cut():
    assert foreign('x' * 80) == 'x' * 80
    for text in ('x' * 81, 'x' * 10**6, '\n' * 80, 10**100):
        assert len(foreign(text)) == 80
        assert foreign(text).endswith('...')
    assert len(foreign('x' * 500, 200)) == 200


def test_values_that_cannot_be_written():
    assert 'int' in shown(10**5000)
    assert 'list' in shown([10**5000])


def test_an_error_is_one_line_of_bounded_length():
    error = ModelError(f'{os.fsdecode(b"x" * 10**6)}\n\x1b[2J')
    assert str(error).isprintable()
    assert len(str(error)) == 4000
    assert str(pickle.loads(pickle.dumps(UserError('a\nb')))) == r'a\nb'
