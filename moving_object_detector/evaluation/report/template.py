"""The page's templates: how numbers are written, and the one file that comes of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from moving_object_detector.common.options import flatten
from moving_object_detector.evaluation.results import Picture

NOTHING: Final = '\N{EN DASH}'
SMALL: Final = 320
"""Width of the pictures of a contact sheet, pixels."""
_QUALITY: Final = (cv2.IMWRITE_JPEG_QUALITY, 78)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number; None is a dash."""
    return NOTHING if value is None else f'{value:.{digits}f}'.replace('-', '\N{MINUS SIGN}')


def signed(value: float | None, digits: int = 3) -> str:
    """Write a difference with its sign."""
    return NOTHING if value is None else f'{value:+.{digits}f}'.replace('-', '\N{MINUS SIGN}')


def percent(value: float | None) -> str:
    """Write a share."""
    return NOTHING if value is None else f'{100 * value:.1f} %'


def count(value: int) -> str:
    """Write a count, thousands apart."""
    return f'{value:,}'


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as lines of dotted name and value."""
    return [
        (name, ', '.join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in flatten(values)
    ]


@dataclass(frozen=True)
class Shot:
    """A picture that is part of the page."""

    source: str
    """A data URI."""
    width: int
    height: int
    caption: str


def embed(folder: Path, picture: Picture, caption: str, width: int | None = None) -> Shot | None:
    """Read a picture of a run.

    Args:
        folder: The run's folder.
        picture: Which one.
        caption: What it shows.
        width: Pixels to which it is reduced; None: as it is.

    Returns:
        None if it is no longer there.

    """
    path = (folder / picture.file).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        return None
    if width is not None and image.shape[1] > width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode('.jpg', image, _QUALITY)[1].tobytes()
    source = f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'
    return Shot(source, image.shape[1], image.shape[0], caption)


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'number': number, 'signed': signed, 'percent': percent, 'count': count}
    return environment


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """Return the page that a template makes of its context."""
    return _environment().get_template(template).render(context).encode()
