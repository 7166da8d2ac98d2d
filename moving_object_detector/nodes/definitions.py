"""Message definitions for a bag, from the message classes that ROS generated."""

from __future__ import annotations

import importlib
import re
from typing import Any

from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from moving_object_detector.common.errors import UserError

# How a Python class names a field's type, against how a .msg file does.
_NAMES = {'boolean': 'bool', 'double': 'float64', 'float': 'float32', 'octet': 'byte'}


def message_class(name: str) -> Any:
    """Return the class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        UserError: The name is not a message type, or its package is not installed.

    """
    package, _, short = name.replace('/msg/', '/').partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), short)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f'message type {name} is not installed here; install and source the package {package}'
        ) from error


def _field(kind: str) -> tuple[str, str | None]:
    """Turn a class's field type into a .msg file's; also return the message type it refers to."""
    sequence = re.fullmatch(r'sequence<(.+?)(?:, (\d+))?>', kind)
    array = re.fullmatch(r'(.+)\[(\d+)\]', kind)
    suffix = ''
    if sequence:
        kind, suffix = sequence[1], f'[<={sequence[2]}]' if sequence[2] else '[]'
    elif array:
        kind, suffix = array[1], f'[{array[2]}]'
    text = re.sub(r'^(w?string)<(\d+)>$', r'\1<=\2', kind)
    return _NAMES.get(text, text) + suffix, kind if '/' in kind else None


def register_type(typestore: Typestore, name: str) -> None:
    """Make ``typestore`` know a message type and all types in it.

    Constants and comments are left out: they are no part of the type's hash.

    Args:
        typestore: Where to register.
        name: For example ``vision_msgs/msg/Detection2DArray``.

    Raises:
        UserError: The type is not installed.

    """
    if name in typestore.fielddefs:
        return
    lines = []
    for field, kind in message_class(name).get_fields_and_field_types().items():
        text, inner = _field(kind)
        lines.append(f'{text} {field}')
        if inner is not None:
            package, _, short = inner.partition('/')
            register_type(typestore, f'{package}/msg/{short}')
    typestore.register(get_types_from_msg('\n'.join(lines), name))
