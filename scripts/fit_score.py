"""Fit the score of a region on rendered clips, and plot its calibration.

    PYTHONPATH=. .venv/bin/python scripts/fit_score.py --clips 180 --plot docs/score.png

Prints the constants SEEN (camera motion estimated from the images) and KNOWN (from odometry) of detection/rigid.py.
A region is right if at least 40 % of its pixels move. Clips have seeds from 400,000, unused by training and evaluation,
and give four results each: flights of all motions and parallaxes, a third of them without movers. For SEEN every third
clip is a scene of sheets instead, half of them without movers, with few static things to tell the camera motion by.
Constants are fitted on all clips (the shipped ones on 180); the plot is a two-fold cross-validation.
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
    """Return a flight: each motion with each parallax once without and twice with movers."""
    kind = number // 3
    parallax = (0.5, 1.0, 2.0)[(kind // len(MOTIONS) + kind) % 3]
    options = FlightOptions(SIZE, number % 3 == 0, MOTIONS[kind % len(MOTIONS)], parallax, frames=40)
    return flight(FIRST_SEED + number, options)


def sheets(number: int) -> Scene:
    """Return a scene of sheets passed by the camera: each parallax once without and once with movers."""
    objects = ((0, 0), (1, 2))[number % 2]
    options = SceneOptions(size=SIZE, objects=objects, standing=(2, 5), parallax=(0.5, 1.0, 2.0)[number // 2 % 3])
    return clip_scene(FIRST_SEED + number, options)


def collect(detector: Detector, number: int, *, known: bool) -> list[tuple[float, float, float]]:
    """Return, for each region of a clip, its contradiction to a rigid scene, mean probability, and if it moves."""
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
    """Return the coefficients of a logistic regression with a small ridge penalty, by Newton's method."""
    columns = np.column_stack((np.ones(len(inputs)), inputs))
    found, decay = np.zeros(columns.shape[1]), weight * np.eye(columns.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-columns @ found))
        curvature = (columns * (share * (1 - share))[:, None]).T @ columns + decay
        found += np.linalg.solve(curvature, columns.T @ (right - share) - decay @ found)
    return found


def main() -> None:
    """Fit and print both sets of constants, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', type=int, default=72, help='clips per fit (default: %(default)s)')
    parser.add_argument('--config', type=Path, default=Path('config/cpu.yaml'), help="the detector's parameters")
    parser.add_argument('--plot', type=Path, help='file for the plot')
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
        # Two-fold cross-validation over clips.
        scores = np.zeros(len(rows))
        for half in (0, 1):
            told, asked = number // 3 % 2 == half, number // 3 % 2 != half
            constant, *slopes = fit(inputs[told], right[told])
            scores[asked] = 1 / (1 + np.exp(-(constant + inputs[asked] @ slopes)))
        bins = np.minimum((scores * 5).astype(int), 4)
        filled = [b for b in range(5) if (bins == b).any()]
        means = [(scores[bins == b].mean(), right[bins == b].mean(), int((bins == b).sum())) for b in filled]
        print('  score, right, regions:', [(round(s, 2), round(float(r), 2), n) for s, r, n in means])
        label = 'motion known by the robot' if known else 'motion told by the images'
        axes.plot([m[0] for m in means], [m[1] for m in means], marker='o', label=label)
    axes.set(xlabel='score', ylabel='share of regions that move', xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    if arguments.plot:
        figure.savefig(arguments.plot, dpi=90)


if __name__ == '__main__':
    main()
