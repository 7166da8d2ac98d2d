"""Build the engines that a configuration needs and keep them, so that the node starts at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import add_settings, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``build_engine``."""
    parser = argparse.ArgumentParser(
        prog='build_engine',
        description=f'{__doc__} For a TensorRT engine that takes minutes. To be run by the user and on the machine '
        'that the node runs on, with its parameters.',
    )
    parser.add_argument('--config', type=Path, help="the node's parameter file, such as config/gpu.yaml")
    add_settings(parser, 'options, such as window.past=3')
    parser.add_argument(
        '--folder', type=Path, help="where to keep them in place of the user's cache folder, where the node looks"
    )
    arguments = parser.parse_args(argv)

    def body() -> int:
        import logging

        from moving_object_detector.common.parameter_files import load_config
        from moving_object_detector.detection.build import build_detector
        from moving_object_detector.detection.config import DetectorConfig
        from moving_object_detector.engines.cache import EngineCache

        config = load_config(DetectorConfig(), arguments.config, arguments.set)
        cache = EngineCache(arguments.folder)
        progress = logging.StreamHandler(sys.stderr)
        progress.setFormatter(logging.Formatter('%(message)s'))
        engines = logging.getLogger('moving_object_detector.engines')
        level = engines.level
        engines.addHandler(progress)
        engines.setLevel(logging.INFO)
        try:
            detector = build_detector(config, cache=cache)
        finally:
            engines.removeHandler(progress)
            engines.setLevel(level)
        height, width = detector.size
        kept = sorted(cache.folder.glob('*.engine'))
        sys.stdout.write(
            f'ready: {detector.engine.name}, {width}x{height}, {detector.flow.name} flow\n'
            f'{cache.folder} holds {len(kept)} engines, {sum(file.stat().st_size for file in kept) / 1e6:.1f} MB\n'
        )
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
