"""The node ``detect``: camera images in, masks of what moves on its own out."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from moving_object_detector.nodes.runtime import ros_node, run_node, spinning, split_arguments

if TYPE_CHECKING:
    from rclpy.node import Node

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h has them


def _make_node(name: str) -> Node:
    from moving_object_detector.nodes.detect_node import DetectNode

    return DetectNode(name)


def _keep_memory() -> None:
    """Let what images took stay with the process: fetching it anew for each costs more than decoding it (glibc)."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until Ctrl-C."""
    own, ros = split_arguments(argv)
    parser = argparse.ArgumentParser(
        prog='detect',
        description='Detect what moves on its own in the images of a moving camera.',
        epilog='Topics and services: README.md; parameters: docs/parameters.md. Example: '
        'ros2 run moving_object_detector detect --ros-args -r image:=/front/image_raw --params-file config/cpu.yaml',
    )
    parser.parse_args(own)

    def body() -> int:
        _keep_memory()
        # Two threads, so that services and diagnostics answer while a model loads.
        with (
            ros_node('detect', ros, _make_node, remap=['image:=camera/image_raw']) as (node, stop),
            spinning(node, threads=2),
        ):
            stop.wait()
            node.get_logger().info('stopping')
        if node.loading:
            # Python would wait for the thread that loads, and nothing can interrupt an engine that is being built.
            sys.stderr.flush()
            os._exit(0)
        return 0

    return run_node(body)


if __name__ == '__main__':
    sys.exit(main())
