"""All that one run of ``bench`` does."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.bench.cases import EAGER, NAIVE, Case, all_variants, chosen, groups
from moving_object_detector.bench.measure import Effort, UnableError, measure_group
from moving_object_detector.bench.report import group_report, markdown
from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.common.options import with_values
from moving_object_detector.common.program import provenance
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import save_network

RANDOM_FLOW: Final = 'PWC-Net has random weights, since flow.model names none: its times are right, its masks are not'


def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Measure, print and write; return the exit status: 1 where something is broken, 130 after Ctrl-C.

    ``words`` is the command line as it was written, for the report.
    """
    effort = Effort(least=2, most=2, turn=0.05) if arguments.quick else Effort()
    if arguments.rounds:
        effort = replace(effort, least=min(effort.least, arguments.rounds), most=arguments.rounds)
    found = groups(arguments.config, arguments.set, gpu=torch.cuda.is_available(), quick=arguments.quick)
    engines = all_variants()
    cases = chosen([Case(group, variant) for group in found for variant in group.variants(engines)], arguments.only)
    if arguments.list:
        sys.stdout.write(''.join(f'{case.name}\n' for case in cases))
        return 0
    started, load = time.monotonic(), os.getloadavg()[0]
    images = clip(arguments.input, arguments.frames, tuple(arguments.levels))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, 'images.npy'), images)
        cases, notes = _with_flow_weights(cases, Path(folder, 'random.safetensors'))
        reports, skipped, status = _measure(cases, Path(folder, 'images.npy'), effort)
    if status:
        notes.append('stopped by Ctrl-C, so groups are missing')
    report = {
        **provenance('bench', words),
        'image': f'{images.shape[2]}x{images.shape[1]}',
        'load average': [load, os.getloadavg()[0]],
        'seconds': round(time.monotonic() - started, 1),
        'notes': notes,
        'skipped': skipped,
        'groups': reports,
    }
    sys.stdout.write(f'{markdown(report)}\n')
    if arguments.json:
        write_atomically(arguments.json, json.dumps(report, indent=1).encode())
    return status or int(not all(one['expected'] for one in skipped))


def _with_flow_weights(cases: Sequence[Case], path: Path) -> tuple[list[Case], list[str]]:
    """Give PWC-Net random weights where it has none; return the cases and what is to be said of it."""

    def lacks(case: Case) -> bool:
        return case.group.config.flow.backend == 'pwcnet' and not case.group.config.flow.model

    def given(case: Case) -> Case:
        return replace(
            case, group=replace(case.group, config=with_values(case.group.config, {'flow.model': str(path)}))
        )

    if not any(lacks(case) for case in cases):
        return list(cases), []
    save_network(random_pwcnet(), path, {})
    return [given(case) if lacks(case) else case for case in cases], [RANDOM_FLOW]


def _refusal(case: Case) -> str:
    """Return why the case's engine does not run on its device, as far as that is known without loading anything."""
    if case.variant in (EAGER, NAIVE):
        return ''
    try:
        create_engine(case.variant.engine, choose_device(case.config.device), precision=case.variant.precision)
    except UserError as error:
        return str(error)
    return ''


def _measure(
    cases: Sequence[Case], images: Path, effort: Effort
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Return the groups' reports, what could not run, and 130 after Ctrl-C, else 0."""
    reports: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    refused = {case: reason for case in cases if (reason := _refusal(case))}
    for name, reason in {f'{case.variant} on {case.config.device}': reason for case, reason in refused.items()}.items():
        skipped.append({'case': name, 'reason': reason, 'expected': True})
    runnable = [case for case in cases if case not in refused]
    by_group = [(group, list(own)) for group, own in groupby(runnable, key=lambda case: case.group)]

    def fail(case: Case, error: UnableError) -> None:
        skipped.append({'case': case.name, 'reason': str(error), 'expected': error.expected})

    try:
        with tqdm(total=len(by_group), dynamic_ncols=True, bar_format='{l_bar}{bar}| {elapsed}') as bar:
            for position, (group, own) in enumerate(by_group):
                bar.set_description(group.name)

                def progress(share: float, done: int = position) -> None:
                    bar.n = round(done + share, 3)
                    bar.refresh()

                measured = measure_group(own, images, effort, fail, progress)
                if measured:
                    reports.append(group_report(group, measured))
                progress(1.0)
    except KeyboardInterrupt:
        if not reports:
            raise
        return reports, skipped, 130
    if not reports:
        reasons = '; '.join(f'{one["case"]}: {one["reason"]}' for one in skipped)
        raise UserError(f'nothing could be measured: {reasons}')
    return reports, skipped, 0


def random_pwcnet() -> PWCNet:
    """Return PWC-Net with the same random weights each time, whose flow is of some pixels."""
    torch.manual_seed(3)
    network = PWCNet()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    return network


def clip(source: str, count: int, levels: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
    """Return the first frames of a folder, video or bag, or rendered ones, uint8 (N, H, W, 3) RGB."""
    if source:
        from itertools import islice

        from moving_object_detector.media.sources import open_source

        return np.stack([frame.image for frame in islice(iter(open_source(source, levels=levels)), count)])
    from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

    scene = clip_scene(7, SceneOptions(size=(480, 640), objects=(1, 2)))
    return np.stack([scene.image(moment) for moment in range(count)])
