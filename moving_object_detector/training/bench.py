"""Time the training: samples a second and the share of time spent waiting for data, for each stage."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.common.program import positive_int, run_program

if TYPE_CHECKING:
    import torch

    from moving_object_detector.training.config import TrainConfig
    from moving_object_detector.training.loop import Task, Timing

CLIPS: Final = 2
CLIP_FRAMES: Final = '20'


def measure(task: Task, warm_up: int, steps: int, device: torch.device) -> Timing:
    """Run a stage's first steps as the training loop does.

    Args:
        task: The stage; its weights change.
        warm_up: Steps that are not counted.
        steps: Steps after those.
        device: Of the stage.

    """
    import torch

    from moving_object_detector.training.loop import Timing

    timing = Timing()
    batches = iter(task.batches(0))
    for step in range(warm_up + steps):
        begun = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - begun
        # As the loop, which logs every step: the numbers are there when the work is done.
        for value in task.step(step, batch).values():
            float(value)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        if step >= warm_up:
            timing.waiting += waited
            timing.total += time.perf_counter() - begun
            timing.steps += 1
    return timing


def bench(config: TrainConfig, folder: Path, warm_up: int, steps: int) -> dict[str, Any]:
    """Measure each stage.

    Args:
        config: What to measure; footage is rendered where it names none.
        folder: For rendered clips and the flow cache.
        warm_up: Steps of each stage that are not counted.
        steps: Steps of each stage after those.

    Returns:
        Device, size, workers and so on, and of each stage batch, steps a second, samples a second and waiting share.

    Raises:
        UserError: An option or the footage is wrong.

    """
    import torch

    from moving_object_detector.common.options import with_values
    from moving_object_detector.synthetic.render import main as render
    from moving_object_detector.training.distributed import Processes, choose_device
    from moving_object_detector.training.prepare import make_networks, make_stages, open_clips

    rendered = not config.data.root
    if rendered:
        clips = [folder / f'clip{seed}' for seed in range(CLIPS)]
        for seed, clip in enumerate(clips):
            render([str(clip), '--seed', str(seed), '--frames', CLIP_FRAMES])
        config = with_values(config, {'data.root': ','.join(str(clip / 'frames') for clip in clips)})
    names = ('rendered', 'inpainter', 'game')
    config = with_values(config, {f'{name}.steps': warm_up + steps for name in names})
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    device = choose_device(config.run.device)
    footage = open_clips(config, folder, device)
    tasks = make_stages(config, make_networks(config), footage, Processes(), device, lambda step, network: None)
    stages = {}
    sizes = (config.rendered.batch, config.inpainter.batch, config.game.batch)
    for task, batch in zip(tasks, sizes, strict=True):
        timing = measure(task, warm_up, steps, device)
        rate = timing.steps / timing.total
        stages[task.name] = {
            'batch': batch,
            'steps per second': round(rate, 3),
            'samples per second': round(rate * batch, 2),
            'waiting for data': round(timing.waiting_share, 4),
        }
    return {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU',
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'size': f'{config.network.height}x{config.network.width}',
        'workers': config.data.workers,
        'precision': config.run.precision,
        'footage': 'rendered' if rendered else config.data.root,
        'stages': stages,
    }


def table(report: dict[str, Any]) -> str:
    """Return a report of :func:`bench` as a Markdown table."""
    about = f'{report["threads"]} threads, {report["size"]}, {report["precision"]}, {report["workers"]} workers'
    lines = [
        f'**{report["device"]}**, {about}',
        '',
        '| stage | batch | steps/s | samples/s | waiting for data |',
        '|---|---|---|---|---|',
    ]
    for name, stage in report['stages'].items():
        lines.append(
            f'| {name} | {stage["batch"]} | {stage["steps per second"]} | {stage["samples per second"]} '
            f'| {stage["waiting for data"]:.1%} |'
        )
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(prog='bench-train', description=__doc__)
    parser.add_argument(
        'options', nargs='*', metavar='NAME=VALUE', help='of train, such as game.batch=8 data.workers=2'
    )
    parser.add_argument('--config', type=Path, help='YAML file with options, such as config/train.yaml')
    parser.add_argument('--steps', type=positive_int, default=24, help='steps that are counted, default %(default)s')
    parser.add_argument('--warm-up', type=positive_int, default=4, help='steps before those, default %(default)s')
    parser.add_argument('--json', type=Path, help='file for the same figures as JSON')
    arguments = parser.parse_intermixed_args(argv)

    def body() -> int:
        from moving_object_detector.common.files import write_atomically
        from moving_object_detector.common.parameter_files import load_plain_config
        from moving_object_detector.training.config import TrainConfig

        config = load_plain_config(TrainConfig(), arguments.config, arguments.options)
        with tempfile.TemporaryDirectory() as folder:
            report = bench(config, Path(folder), arguments.warm_up, arguments.steps)
        sys.stdout.write(f'{table(report)}\n')
        if arguments.json:
            write_atomically(arguments.json, json.dumps(report, indent=1).encode())
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
