"""Fit the score of a region on rendered flights, and draw how reliable it is.

    PYTHONPATH=. .venv/bin/python scripts/fit_score.py --clips 72 --plot docs/score.png

Prints the constants of detection/rigid.py, for motion that the images tell and for motion that the robot knows.
A region is right where at least 40 % of its pixels move. The flights are those of seeds from 400,000, which neither
training nor evaluation has: a third of them still, all motions and parallaxes, four results of each. Where the images
tell the motion every third clip is a scene of sheets instead, half of them still, with things that stand: it leaves
two or three things at all to tell the travel by. Half of the clips tell the constants that the plot shows on the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, OdometryConfig
from moving_object_detector.detection.detector import Detector
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.detection.regions import find_regions
from moving_object_detector.synthetic.flight import Flight, FlightOptions, flight
from moving_object_detector.synthetic.flight_path import MOTIONS
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.synthetic.scene import Scene

FIRST_SEED = 400_000
RESULTS = 4
RIGHT = 0.4
SIZE = (360, 640)
SHEETS_RATE = 24.0


def clip(number: int) -> Flight:
    """Return a flight: each motion with each parallax once still and twice with movers."""
    kind = number // 3
    parallax = (0.5, 1.0, 2.0)[(kind // len(MOTIONS) + kind) % 3]
    options = FlightOptions(SIZE, number % 3 == 0, MOTIONS[kind % len(MOTIONS)], parallax, frames=40)
    return flight(FIRST_SEED + number, options)


def sheets(number: int) -> Scene:
    """Return a scene of sheets past which a camera travels: each parallax still and with movers."""
    objects = ((0, 0), (1, 2))[number % 2]
    options = SceneOptions(size=SIZE, objects=objects, standing=(2, 5), parallax=(0.5, 1.0, 2.0)[number // 2 % 3])
    return clip_scene(FIRST_SEED + number, options)


def collect(detector: Detector, number: int, *, known: bool) -> list[tuple[float, float, float]]:
    """Return of each region of a clip what contradicts a rigid scene, its mean probability, and whether it moves."""
    found: list[tuple[float, float, float]] = []
    flown: Flight | Scene = clip(number) if known or number % 3 != 1 else sheets(number // 3)
    rate = flown.fps if isinstance(flown, Flight) else SHEETS_RATE
    detector.reset()
    detector.odometry = Odometry(OdometryConfig(frame='odom')) if known else None
    first = int(np.random.default_rng(number).integers(2, 30))
    for time in range(first, first + RESULTS + 2):
        stamp = round(time * 1e9 / rate)
        if detector.odometry is not None and isinstance(flown, Flight):
            detector.odometry.set_camera(flown.size, flown.intrinsics)
            detector.odometry.add_pose(stamp, flown.pose(time))
        for result in detector.step(flown.image(time), stamp, tag=time).results:
            if result.estimate != 'refined' or result.tag == first:
                continue
            mask, test = flown.mask(result.tag), result.test

            def take(region: NDArray[np.bool_], mask: NDArray[np.bool_] = mask, test: object = test) -> float:
                share, vote, _ = test.evidence(region)
                if not np.isnan(share):
                    found.append((share, vote, float(mask[region].mean() >= RIGHT)))
                return 1.0

            find_regions(result.probability, detector.config.mask, take)
    return found


def fit(inputs: NDArray[np.float64], right: NDArray[np.float64], weight: float = 0.05) -> NDArray[np.float64]:
    """Return the constants of a logistic regression by Newton's method, with a little decay."""
    columns = np.column_stack((np.ones(len(inputs)), inputs))
    found, decay = np.zeros(columns.shape[1]), weight * np.eye(columns.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-columns @ found))
        curvature = (columns * (share * (1 - share))[:, None]).T @ columns + decay
        found += np.linalg.solve(curvature, columns.T @ (right - share) - decay @ found)
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', type=int, default=72)
    parser.add_argument('--config', type=Path, default=Path('config/cpu.yaml'))
    parser.add_argument('--plot', type=Path)
    arguments = parser.parse_args()
    mpl.use('Agg')
    from matplotlib import pyplot as plt

    detector = build_detector(load_config(DetectorConfig(), arguments.config))
    figure, axes = plt.subplots(figsize=(4.5, 3.6), layout='constrained')
    axes.plot((0, 1), (0, 1), color='0.7', linewidth=1)
    for name, known in (('SEEN', False), ('KNOWN', True)):
        rows = [
            (*row, number)
            for number in tqdm(range(arguments.clips), unit='clip', desc=name)
            for row in collect(detector, number, known=known)
        ]
        share, vote, right, number = np.array(rows).T
        inputs = np.column_stack((share, vote))
        print(name, np.round(fit(inputs, right), 2).tolist(), f'{len(rows)} regions, {right.mean():.2f} of them right')
        # What each half of the clips tells of the other.
        scores = np.zeros(len(rows))
        for half in (0, 1):
            told, asked = number // 3 % 2 == half, number // 3 % 2 != half
            constant, *slopes = fit(inputs[told], right[told])
            scores[asked] = 1 / (1 + np.exp(-(constant + inputs[asked] @ slopes)))
        bins = np.minimum((scores * 5).astype(int), 4)
        there = [b for b in range(5) if (bins == b).any()]
        means = [(scores[bins == b].mean(), right[bins == b].mean(), int((bins == b).sum())) for b in there]
        print('  score, right, regions:', [(round(s, 2), round(float(r), 2), n) for s, r, n in means])
        label = 'motion known by the robot' if known else 'motion told by the images'
        axes.plot([m[0] for m in means], [m[1] for m in means], marker='o', label=label)
    axes.set(xlabel='score', ylabel='share of regions that move', xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    if arguments.plot:
        figure.savefig(arguments.plot, dpi=90)


if __name__ == '__main__':
    main()
