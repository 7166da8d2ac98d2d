"""Time the detector: per stage and per frame, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moving_object_detector.tools.arguments import positive_int
from moving_object_detector.tools.program import run_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moving_object_detector.detection.config import DetectorConfig

PERCENTILES = (('median', 50), ('p95', 95), ('p99', 99))


class Stopwatch:
    """Collects the times of named stages, in seconds; on a GPU each stage ends when its work has."""

    def __init__(self, synchronise: bool) -> None:
        self.times: dict[str, list[float]] = {}
        self._synchronise = synchronise

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside the context as one run of the stage ``name``."""
        import time

        started = time.perf_counter()
        yield
        if self._synchronise:
            import torch

            torch.cuda.synchronize()
        self.times.setdefault(name, []).append(time.perf_counter() - started)


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, p95 and p99 of some times, in milliseconds."""
    import numpy as np

    return {name: round(1000 * float(np.percentile(seconds, share)), 2) for name, share in PERCENTILES}


def _frames(source: str, count: int) -> list[NDArray[np.uint8]]:
    """Read frames of a folder, video or bag, or render some; repeated until there are ``count``."""
    from itertools import cycle, islice

    if source:
        from moving_object_detector.datasets.sources import open_source

        images = [frame.image for frame in islice(iter(open_source(source)), count)]
    else:
        from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

        scene = clip_scene(7, SceneOptions(size=(480, 640), objects=(1, 2)))
        images = [scene.image(time) for time in range(30)]
    return list(islice(cycle(images + images[-2:0:-1]), count))


def measure(config: DetectorConfig, images: list[NDArray[np.uint8]], warm_up: int) -> dict[str, Any]:
    """Run the detector over frames as the node does: image in, refined mask and regions out.

    Args:
        config: What to measure.
        images: Frames, uint8 (H, W, 3) RGB.
        warm_up: Frames at the start that are not counted.

    Returns:
        Engine, flow, and per stage and frame the milliseconds of :func:`summary`.

    """
    from moving_object_detector.detection.build import build_detector
    from moving_object_detector.engines.create import choose_device

    watch = Stopwatch(choose_device(config.device).type == 'cuda')
    detector = build_detector(config, watch)
    for index, image in enumerate(images):
        if index == warm_up:
            watch.times.clear()
        with watch('frame'):
            results = detector.step(image, index * 33_333_333)
            with watch('refinement and regions'):
                for result in results:
                    if result.estimate == 'refined':
                        _ = result.mask
    stages = {name: summary(times) for name, times in watch.times.items()}
    frame = stages.pop('frame')
    return {
        'engine': detector.engine.name,
        'flow': detector.flow.name,
        'size': f'{detector.size[1]}x{detector.size[0]}',
        'window': f'-{config.window.past}..+{config.window.future}',
        'stages': stages,
        'frame': frame,
        'frames per second': round(1000 / frame['median'], 2),
    }


def table(report: dict[str, Any]) -> str:
    """Return a report of :func:`measure` as a Markdown table."""
    title = f'{report["engine"]}, {report["flow"]} flow, {report["size"]}, window {report["window"]}'
    lines = [f'**{title}**: {report["frames per second"]} frames/s', '', '| stage | median ms | p95 | p99 |']
    lines.append('|---|---|---|---|')
    for name, times in (*report['stages'].items(), ('**frame**', report['frame'])):
        lines.append(f'| {name} | {times["median"]} | {times["p95"]} | {times["p99"]} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``bench``."""
    parser = argparse.ArgumentParser(prog='bench', description=__doc__)
    parser.add_argument('--config', type=Path, help="the node's parameter file, such as config/cpu.yaml")
    parser.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE', help='options, such as window.past=3')
    parser.add_argument('--input', default='', help='folder, video or bag; a rendered 640x480 clip unless given')
    parser.add_argument('--frames', type=positive_int, default=120, help='frames that are counted, default %(default)s')
    parser.add_argument('--warm-up', type=positive_int, default=15, help='frames before those, default %(default)s')
    parser.add_argument('--json', type=Path, help='file for the same figures as JSON')
    arguments = parser.parse_args(argv)

    def body() -> int:
        import platform

        import torch

        from moving_object_detector.config_file import load_config
        from moving_object_detector.detection.config import DetectorConfig
        from moving_object_detector.errors import UserError

        config = load_config(DetectorConfig(), arguments.config, arguments.set)
        images = _frames(arguments.input, arguments.frames + arguments.warm_up)
        report = measure(config, images, arguments.warm_up)
        report |= {
            'machine': f'{platform.machine()}, {torch.get_num_threads()} threads',
            'torch': torch.__version__,
            'image': f'{images[0].shape[1]}x{images[0].shape[0]}',
            'configuration': asdict(config),
        }
        sys.stdout.write(
            f'{table(report)}\n\n{report["image"]} images, {arguments.frames} frames, {report["machine"]}\n'
        )
        if arguments.json:
            try:
                arguments.json.write_text(json.dumps(report, indent=1), encoding='utf-8')
            except OSError as error:
                raise UserError(f'{arguments.json} cannot be written: {error.strerror}') from error
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
