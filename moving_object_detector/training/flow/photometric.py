"""What differs between two photographs of the same scene, and between two cameras: colours, not places."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def tone_table(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Return a table of 256 tones for each of R, G and B: contrast, gamma, brightness and channel gains.

    Args:
        rng: Of the draw.
        strength: 1: as between cameras (contrast 0.6 to 1.4, gamma 0.7 to 1.5, brightness +-0.2, gains 0.8 to 1.2);
            less: proportionally nearer to no change; 0: none.

    Returns:
        (256, 3) uint8.

    """
    tones = np.arange(256, dtype=np.float64)[:, None] / 255.0
    gamma = float(np.exp(strength * rng.uniform(np.log(0.7), np.log(1.5))))
    contrast = 1.0 + strength * float(rng.uniform(-0.4, 0.4))
    brightness = strength * float(rng.uniform(-0.2, 0.2))
    gains = 1.0 + strength * rng.uniform(-0.2, 0.2, 3)
    tones = ((tones - 0.5) * contrast + 0.5 + brightness) * gains
    return np.asarray(np.rint(255.0 * tones.clip(0, 1) ** gamma), np.uint8)


def turn_hue(image: Image, angle: float) -> Image:
    """Turn the colours of (H, W, 3) about the grey axis by ``angle`` radians; greys stay."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3.0)
    third = (1.0 - cosine) / 3.0
    turn = np.full((3, 3), third) + np.diag((cosine,) * 3)
    turn += sine * np.array(((0, -1, 1), (1, 0, -1), (-1, 1, 0)))
    return np.asarray(cv2.transform(image, turn), np.uint8)


def add_sensor(image: Image, rng: np.random.Generator) -> Image:
    """Blur half of the images, by 0.3 to 1.5 pixels, and add grey noise of up to 5 levels."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.5))), np.uint8)
    noise = rng.standard_normal(image.shape[:2], np.float32) * np.float32(rng.uniform(0, 5))
    grey = cv2.merge((np.rint(noise).astype(np.int16),) * 3)
    return np.asarray(cv2.add(image, grey, dtype=cv2.CV_8U), np.uint8)


def photographs(first: Image, second: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Make two rendered frames look as if photographed: one camera for both, and little things of each.

    Shared are tone and, in a third of the pairs, hue; each frame has its own small change of tone (a camera's
    automatic exposure) and its own blur and noise.

    Args:
        first: uint8 (H, W, 3) RGB.
        second: The same.
        rng: Of the draw.

    """
    shared = tone_table(rng, 1.0)
    angle = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 1 / 3 else 0.0
    pictures = []
    for image in (first, second):
        own = tone_table(rng, 0.15)
        table = np.stack([own[shared[:, channel], channel] for channel in range(3)], 1)
        toned = np.asarray(cv2.LUT(image, table[None]), np.uint8)
        if angle:
            toned = turn_hue(toned, angle)
        pictures.append(add_sensor(toned, rng))
    return pictures[0], pictures[1]
