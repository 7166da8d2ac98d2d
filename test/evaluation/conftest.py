from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.evaluation.results import KeptFrame, RunResult, SequenceResult, VariantColumns
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
def davis(tmp_path, write_davis):
    """A miniature of DAVIS 2016: ``wander`` and ``blink``, whose object is gone in frames 2 and 5; 48x96 pixels."""
    rng = np.random.default_rng(2)
    ground = cv2.resize(rng.integers(0, 256, (12, 24, 3), np.uint8), (140, 60), interpolation=cv2.INTER_CUBIC)
    ball = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (20, 20), interpolation=cv2.INTER_CUBIC)

    def frame(number, there):
        image, mask = ground[4:52, number : 96 + number].copy(), np.zeros(SIZE, np.uint8)
        if there:
            window = slice(14, 34), slice(10 + 5 * number, 30 + 5 * number)
            image[window], mask[window] = ball, 255
        return image, mask

    gone = {'wander': (), 'blink': (2, 5)}
    sequences = {name: [frame(k, k not in missing) for k in range(FRAMES)] for name, missing in gone.items()}
    return write_davis(tmp_path / 'davis', 'val', sequences)


# Runs as a report takes them ------------------------------------------------------------------------------------------

ODD = 'odd <b>&"name" $x$ \'</script>'
VOID = {'meta', 'img', 'input', 'br', 'link'}


class Page(HTMLParser):
    """What a browser would make of a page: text, references, cells of the tables; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.words, self.rows, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f'left open: {self._open}'

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in {'src', 'href', 'xlink:href', 'srcset', 'poster', 'action', 'data'}:
                self.references.append((tag, name, value))
        if tag == 'tr':
            self.rows.append([])
        if tag in {'td', 'th'} and self.rows:
            self.rows[-1].append('')
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open, f'{tag} closed but not open'
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in {'style', 'script'}:
            return
        self.words.append(data)
        if {'td', 'th'} & set(self._open):
            self.rows[-1][-1] += data.strip()

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())

    def row(self, name):
        return next(row for row in self.rows if row and row[0] == name)


@pytest.fixture
def parse():
    return lambda path: Page(path.read_text(encoding='utf-8'))


def columns(j, f, found=None):
    return VariantColumns(
        j=j,
        f=f,
        objects=tuple(None if value is None else 1.0 for value in j),
        found=tuple(None if value is None else float(value > 0.5) for value in j),
        false=tuple(None if value is None else 0.0 for value in j),
        area=tuple(0.0 if value == 0.0 else 0.25 for value in j),
    )


@pytest.fixture
def odd():
    """The name of the run's second sequence."""
    return ODD


@pytest.fixture
def run_pictures(tmp_path):
    """Pictures of a sequence, written to a run's folder."""

    def write(name, kinds=('best', 'worst', 'spread')):
        found = []
        for number, kind in enumerate(kinds):
            path = tmp_path / 'pictures' / name / f'{kind}_{number}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((36, 64, 3), 40 * number, np.uint8))
            found.append(KeptFrame(path.relative_to(tmp_path).as_posix(), number + 1, kind))
        return tuple(found)

    return write


@pytest.fixture
def run(run_pictures, odd):
    """A run of two sequences of DAVIS, 3 and 2 of whose frames are scored, worked out by hand.

    ``car``: J 0.9, 0.2, 0.7, so mean 0.6, recall 2/3; the odd one: 0.9, 0.7, so mean 0.8, recall 1. All: 0.7, 0.833.
    """
    car = {
        'zero_lag': columns((0.0, 0.5, 0.1, 0.3, 0.0), (0.0, 0.4, 0.4, 0.4, 0.0)),
        'refined': columns((0.0, 0.9, 0.2, 0.7, 0.0), (0.0, 0.8, 0.3, 0.4, 0.0)),
    }
    other = {
        'zero_lag': columns((None, 0.4, 0.6, None), (None, 0.4, 0.6, None)),
        'refined': columns((None, 0.9, 0.7, None), (None, 0.7, 0.4, None)),
    }
    common = {'size': (48, 96), 'fps': 24.0}
    return RunResult(
        identity={
            'dataset': 'davis2016',
            'root': 'data/davis',
            'split': 'val',
            'protocol': 'davis2016',
            'method': 'detector',
            'variants': ['zero_lag', 'refined'],
            'configuration': {'threshold': 0.45, 'window': {'past': 5}},
            'model': 'abc123',
        },
        details={'command': 'evaluate --root <here>', 'versions': {'numpy': '2.2.6'}, 'flow': 'dis-medium'},
        sequences=(
            SequenceResult(
                name='car',
                frame_count=5,
                seconds=2.0,
                variants=car,
                latency=(10.0, 20.0, 30.0),
                pictures=run_pictures('car'),
                **common,
            ),
            SequenceResult(
                name=odd,
                frame_count=4,
                seconds=1.0,
                variants=other,
                latency=(40.0,),
                problems=('frame 2 is <damaged>',),
                pictures=run_pictures('odd'),
                **common,
            ),
        ),
        problems=('lost: no frame could be read',),
    )


@pytest.fixture
def blind(run):
    """The same without truth."""

    def without(item):
        nothing = (None,) * item.frame_count
        variants = {
            name: VariantColumns(nothing, nothing, nothing, nothing, nothing, values.area)
            for name, values in item.variants.items()
        }
        spread = tuple(picture for picture in item.pictures if picture.kind == 'spread')
        return replace(item, variants=variants, pictures=spread)

    return replace(
        run,
        identity={**run.identity, 'dataset': 'bag', 'root': 'rides/ride.mcap', 'split': '', 'protocol': 'annotated'},
        sequences=tuple(without(item) for item in run.sequences),
    )
