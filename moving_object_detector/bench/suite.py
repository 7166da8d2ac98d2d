"""All that one run of ``bench`` does."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.bench.cases import EAGER, NAIVE, Case, Group, Variant, all_variants, chosen, groups
from moving_object_detector.bench.plot import check_plot, draw
from moving_object_detector.bench.report import group_report
from moving_object_detector.bench.rounds import Effort, measure_group
from moving_object_detector.bench.tables import markdown
from moving_object_detector.bench.worker import UnableError, refusals
from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.common.options import with_values
from moving_object_detector.common.program import provenance
from moving_object_detector.engines.create import choose_device
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import save_network

RANDOM_FLOW: Final = 'PWC-Net has random weights, since flow.model names none: its times are right, its masks are not'
QUICK: Final = Effort(least=2, most=2, turn=0.05)


class Suite:
    """One run of the program.

    Args:
        arguments: Of the command line.
        words: The same as they were written, for the report.

    """

    def __init__(self, arguments: argparse.Namespace, words: Sequence[str]) -> None:
        self._arguments = arguments
        self._words = words
        effort = QUICK if arguments.quick else Effort()
        if arguments.rounds:
            effort = replace(effort, least=min(effort.least, arguments.rounds), most=arguments.rounds)
        self._effort = effort
        self._skipped: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._status = 0

    def run(self) -> int:
        """Measure, print and write; return the exit status: 1 where something is broken, 130 after Ctrl-C."""
        if self._arguments.plot:
            check_plot(self._arguments.plot)
        with tempfile.TemporaryDirectory() as folder:
            cases = self._cases(Path(folder))
            if self._arguments.list:
                sys.stdout.write(''.join(f'{case.name}\n' for case in cases))
                return 0
            report = self._measure(cases, Path(folder))
        sys.stdout.write(f'{markdown(report)}\n')
        if self._arguments.json:
            write_atomically(self._arguments.json, json.dumps(report, indent=1).encode())
        if self._arguments.plot:
            draw(report, self._arguments.plot)
        return self._status

    def _cases(self, folder: Path) -> list[Case]:
        """Return what is to be measured, also what will turn out not to run here."""
        found = groups(
            self._arguments.config, self._arguments.set, gpu=torch.cuda.is_available(), quick=self._arguments.quick
        )
        engines = all_variants()
        cases = [Case(group, variant) for group in found for variant in group.variants(engines)]
        wanted = chosen(cases, self._arguments.only)
        return [replace(case, group=self._with_flow_weights(case.group, folder)) for case in wanted]

    def _with_flow_weights(self, group: Group, folder: Path) -> Group:
        config = group.config
        if config.flow.backend != 'pwcnet' or config.flow.model:
            return group
        path = folder / 'random.safetensors'
        if not path.exists():
            save_network(random_pwcnet(), path, {})
            self._notes.append(RANDOM_FLOW)
        return replace(group, config=with_values(config, {'flow.model': str(path)}))

    def _measure(self, cases: Sequence[Case], folder: Path) -> dict[str, Any]:
        started, load = time.monotonic(), os.getloadavg()[0]
        images = clip(self._arguments.input, self._arguments.frames)
        file = folder / 'images.npy'
        np.save(file, images)
        cases = self._runnable(cases)
        reports: list[dict[str, Any]] = []
        try:
            self._measure_groups(cases, file, reports)
        except KeyboardInterrupt:
            if not reports:
                raise
            self._notes.append('stopped by Ctrl-C, so groups are missing')
            self._status = 130
        if not reports:
            reasons = '; '.join(f'{one["case"]}: {one["reason"]}' for one in self._skipped)
            raise UserError(f'nothing could be measured: {reasons}')
        return {
            **provenance('bench', self._words),
            'image': f'{images.shape[2]}x{images.shape[1]}',
            'load average': [load, os.getloadavg()[0]],
            'seconds': round(time.monotonic() - started, 1),
            'notes': self._notes,
            'skipped': self._skipped,
            'groups': reports,
        }

    def _measure_groups(self, cases: Sequence[Case], images: Path, reports: list[dict[str, Any]]) -> None:
        found = list(dict.fromkeys(case.group.name for case in cases))
        with tqdm(total=len(found), dynamic_ncols=True, bar_format='{l_bar}{bar}| {elapsed}') as bar:
            for position, name in enumerate(found):
                own = [case for case in cases if case.group.name == name]
                bar.set_description(name)

                def progress(share: float, done: int = position) -> None:
                    bar.n = round(done + share, 3)
                    bar.refresh()

                measured = measure_group(own[0].group, own, images, self._effort, self._skip, progress)
                if measured:
                    reports.append(group_report(own[0].group, measured))
                progress(1.0)

    def _runnable(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases whose engine runs on its device; note of the others why not, once for each engine."""
        wanted: dict[str, dict[Variant, None]] = {}
        for case in cases:
            wanted.setdefault(_device(case), {})[case.variant] = None
        refused = {device: self._refusals(device, variants) for device, variants in wanted.items()}
        return [case for case in cases if case.variant not in refused[_device(case)]]

    def _refusals(self, device: str, variants: Iterable[Variant]) -> set[Variant]:
        try:
            found = refusals(device, [variant for variant in variants if variant not in (EAGER, NAIVE)])
        except UnableError:
            # Something is broken: the cases will say what.
            return set()
        for variant, reason in found.items():
            self._skipped.append({'case': f'{variant} on {device}', 'reason': reason, 'expected': True})
        return set(found)

    def _skip(self, case: Case, error: UnableError) -> None:
        if not error.expected:
            self._status = 1
        self._skipped.append({'case': case.name, 'reason': str(error), 'expected': error.expected})


def _device(case: Case) -> str:
    return str(choose_device(case.group.config.device))


def random_pwcnet() -> PWCNet:
    """Return PWC-Net with the same random weights each time, whose flow is of some pixels."""
    torch.manual_seed(3)
    network = PWCNet()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    return network


def clip(source: str, count: int) -> NDArray[np.uint8]:
    """Return the first frames of a folder, video or bag, or rendered ones, uint8 (N, H, W, 3) RGB."""
    if source:
        from itertools import islice

        from moving_object_detector.media.sources import open_source

        return np.stack([frame.image for frame in islice(iter(open_source(source)), count)])
    from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

    scene = clip_scene(7, SceneOptions(size=(480, 640), objects=(1, 2)))
    return np.stack([scene.image(moment) for moment in range(count)])
