"""Errors with messages that users can act on, and the escaping of foreign text in messages."""

from __future__ import annotations

import unicodedata
from typing import Final

LONGEST_MESSAGE: Final = 4000


def foreign(text: object, longest: int = 80) -> str:
    r"""Make a text from outside safe for a log, a message or a terminal: on one line, escaped, shortened.

    Control and format characters (escape sequences, newlines, changes of direction) and bytes that are not UTF-8 become
    ``\x1b`` and the like; a text longer than ``longest`` characters is cut and ends in ``...``.
    """
    try:
        whole = text.decode(errors='backslashreplace') if isinstance(text, bytes) else str(text)
    except (ValueError, RecursionError):
        # Python refuses to print a number of more than 4,300 digits.
        whole = f'a {type(text).__name__} too long to write'
    escaped = ''.join(map(_escaped, whole[: longest + 1]))
    return escaped if len(whole) <= longest and len(escaped) <= longest else f'{escaped[: longest - 3]}...'


def shown(value: object) -> str:
    """Return a value from outside for a message, safe as by :func:`foreign`; strings in quotes, others as ``str``."""
    return f"'{foreign(value)}'" if isinstance(value, str) else foreign(value)


def _escaped(character: str) -> str:
    if unicodedata.category(character)[0] != 'C' and character not in '\u2028\u2029':
        return character
    return character.encode('unicode_escape').decode()


class UserError(ValueError):
    """Wrong user input; the message names it and the remedy. Programs print only the message and exit with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(foreign(message, LONGEST_MESSAGE))


class ModelError(UserError):
    """A model file is missing, unreadable, of the wrong shape or not safe to load."""


class ImageError(UserError):
    """An image message or file cannot be decoded as its header says."""


class NotFiniteError(ArithmeticError):
    """The networks returned NaN or infinity."""
