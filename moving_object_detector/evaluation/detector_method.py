"""The node's own detector as a method to score."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, get_args

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import file_hash, generator_path
from moving_object_detector.common.options import options_of
from moving_object_detector.datasets.frames import Frame, FrameSource
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, RefinementConfig
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.evaluation.method import Finding

REFINEMENTS: Final = next(o.choices for o in options_of(DetectorConfig) if o.name == 'refinement.method')


def default_variants(config: DetectorConfig) -> tuple[str, ...]:
    """Return both estimates as averaged, and last the refined one as the node publishes it."""
    method = config.refinement.method
    plain = ('zero_lag', 'refined')
    return plain if method == 'none' else (*plain, f'refined+{method}')


def parse_variant(name: str, config: RefinementConfig) -> tuple[Estimate, RefinementConfig]:
    """Return the estimate and the refinement that a variant names: ``ESTIMATE`` or ``ESTIMATE+METHOD``.

    Raises:
        UserError: There is no such estimate or method.

    """
    estimate, _, method = name.partition('+')
    if estimate not in get_args(Estimate) or (method or 'none') not in REFINEMENTS:
        methods = ', '.join(REFINEMENTS)
        raise UserError(
            f'{name} is no variant; give {" or ".join(get_args(Estimate))}, with +METHOD where it is to be refined by '
            f'one of {methods}, such as refined+crf'
        )
    return estimate, replace(config, method=method or 'none')  # type: ignore[return-value]


def config_identity(config: DetectorConfig) -> dict[str, Any]:
    """Return what decides a detector's masks: all options, and hashes of the weights."""
    identity = {'configuration': asdict(config), 'model': file_hash(generator_path(config.model))}
    if config.flow.model:
        identity['flow_model'] = file_hash(Path(config.flow.model).expanduser())
    return identity


class DetectorMethod:
    """Streams frames through :class:`Detector` once and reads its results in several ways.

    Args:
        config: All options of the detector.
        variants: Names as :func:`parse_variant` takes them; empty: :func:`default_variants`.

    Raises:
        UserError: An option, a model file or a variant is wrong.

    """

    name = 'detector'

    def __init__(self, config: DetectorConfig, variants: Iterable[str] = ()) -> None:
        self.variants = tuple(dict.fromkeys(variants)) or default_variants(config)
        self._reading = {name: parse_variant(name, config.refinement) for name in self.variants}
        self._detector = build_detector(config)
        self.identity: Mapping[str, Any] = config_identity(config)
        self.details: Mapping[str, Any] = {'engine': self._detector.engine.name, 'flow': self._detector.flow.name}

    def start(self, name: str, source: FrameSource) -> Sequence[str]:
        """Begin a clip."""
        self._detector.reset()
        return ()

    def step(self, frame: Frame, index: int) -> Iterator[Finding]:
        """Take the next frame; yield what became known by it."""
        begin = time.perf_counter()
        results = self._detector.step(frame.image, frame.stamp, tag=index)
        yield from self._findings(results, time.perf_counter() - begin)

    def finish(self) -> Iterator[Finding]:
        """Yield what waited for later frames."""
        yield from self._findings(self._detector.flush(), None)

    def _findings(self, results: Iterable[Result], computing: float | None) -> Iterator[Finding]:
        for result in results:
            for variant, (estimate, refinement) in self._reading.items():
                if result.estimate != estimate:
                    continue
                read = result.refined_by(refinement)
                begin = time.perf_counter()
                mask = read.mask
                reading = time.perf_counter() - begin
                counts = variant == self.variants[-1]
                yield Finding(
                    index=result.tag,  # type: ignore[arg-type]
                    variant=variant,
                    image=result.image,
                    mask=mask,
                    flow=result.coarse_flow if counts and estimate == 'refined' else None,
                    latency=None if computing is None else 1e3 * (computing + reading),
                )
