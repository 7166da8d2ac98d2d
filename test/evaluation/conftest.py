from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import save_network

SIZE = (48, 96)
FRAMES = 6


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """A generator with random weights whose masks cover part of the image."""
    torch.manual_seed(4)
    generator = Generator()
    with torch.no_grad():
        generator.conv17.gamma.fill_(60.0)
    path = tmp_path_factory.mktemp('model') / 'random.safetensors'
    metadata = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}
    save_network(generator, path, metadata)
    return path


@pytest.fixture(scope='session')
def options(model):
    """Options that make the detector small, as name=value."""
    return [
        f'model={model}',
        'engine=torch',
        'flow.height=48',
        'flow.width=96',
        'flow.preset=ultrafast',
        'window.past=1',
        'window.future=1',
        'gate.min_motion=0.0',
        'refinement.method=none',
    ]


@pytest.fixture
def davis(tmp_path):
    """A miniature of DAVIS 2016: ``wander`` and ``blink``, whose object is gone in frames 2 and 5; 48x96 pixels."""
    root = tmp_path / 'davis'
    rng = np.random.default_rng(2)
    ground = cv2.resize(rng.integers(0, 256, (12, 24, 3), np.uint8), (140, 60), interpolation=cv2.INTER_CUBIC)
    ball = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (20, 20), interpolation=cv2.INTER_CUBIC)
    rows = []
    for name, gone in (('wander', ()), ('blink', (2, 5))):
        for folder in ('JPEGImages', 'Annotations'):
            (root / folder / '480p' / name).mkdir(parents=True)
        for number in range(FRAMES):
            image = ground[4:52, number : 96 + number].copy()
            mask = np.zeros(SIZE, np.uint8)
            if number not in gone:
                window = slice(14, 34), slice(10 + 5 * number, 30 + 5 * number)
                image[window] = ball
                mask[window] = 255
            cv2.imwrite(str(root / 'JPEGImages' / '480p' / name / f'{number:05d}.jpg'), image)
            cv2.imwrite(str(root / 'Annotations' / '480p' / name / f'{number:05d}.png'), mask)
            rows.append(f'/JPEGImages/480p/{name}/{number:05d}.jpg /Annotations/480p/{name}/{number:05d}.png')
    listing = root / 'ImageSets' / '480p' / 'val.txt'
    listing.parent.mkdir(parents=True)
    listing.write_text('\n'.join(rows))
    return root
