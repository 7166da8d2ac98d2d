"""Command lines of this folder's programs and of ``bench``; what they run is imported later: ``--help`` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from moving_object_detector.common.files import PACKAGE
from moving_object_detector.common.program import TOPIC, add_settings, add_source_arguments, positive_int, run_program


def _start(module: str, function: str, arguments: argparse.Namespace) -> int:
    """Import a module of the package and run one of its functions."""
    return run_program(lambda: int(getattr(import_module(f'{PACKAGE}.{module}'), function)(arguments)))


def make_bag(argv: Sequence[str] | None = None) -> int:
    """Convert folders of frames, videos or bags, one after another, to one rosbag2; needs no ROS."""
    parser = argparse.ArgumentParser(prog='make_bag', description=make_bag.__doc__)
    add_source_arguments(parser, several=True)
    parser.add_argument('output', metavar='OUTPUT_DIR', help='folder of the bag to write')
    parser.add_argument('--topic', default=TOPIC, help='topic to write (default: %(default)s)')
    parser.add_argument('--frame-id', default='camera', help='frame id of the headers (default: %(default)s)')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--compressed', action='store_true', help='write JPEG on TOPIC/compressed instead')
    form.add_argument('--png', action='store_true', help='write lossless PNG on TOPIC/compressed instead')
    masks = (
        'folder of masks (not 0: object) with the names of the frames; for a video or bag 000000.png, 000001.png, ...; '
        'give it once for each INPUT'
    )
    parser.add_argument('--masks', metavar='DIR', action='append', default=[], help=masks)
    parser.add_argument('--mask-topic', help='topic of the masks (default: /truth)')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    arguments = parser.parse_args(argv)
    if arguments.masks and len(arguments.masks) != len(arguments.inputs):
        parser.error(f'{len(arguments.inputs)} inputs, but --masks was given {len(arguments.masks)} times')
    if arguments.mask_topic and not arguments.masks:
        parser.error('--mask-topic has no effect without --masks; leave it out')
    return _start('programs.clips', 'write_bag', arguments)


def make_video(argv: Sequence[str] | None = None) -> int:
    """Convert a folder of frames, a video or an image topic of a bag to an MP4 that browsers play."""
    parser = argparse.ArgumentParser(prog='make_video', description=make_video.__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUT.mp4', help='video to write; an older one is replaced')
    return _start('programs.clips', 'write_video', parser.parse_args(argv))


def contact_sheet(argv: Sequence[str] | None = None) -> int:
    """Draw evenly spaced frames of a folder, a video or a bag into one PNG."""
    parser = argparse.ArgumentParser(prog='contact_sheet', description=contact_sheet.__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUT.png', type=Path, help='picture to write; an older one is replaced')
    parser.add_argument('--columns', type=positive_int, default=4, help='frames in a row (default: %(default)s)')
    parser.add_argument('--frames', type=positive_int, default=12, help='frames in all (default: %(default)s)')
    parser.add_argument('--width', type=positive_int, default=320, help='pixels of a frame (default: %(default)s)')
    return _start('programs.clips', 'write_sheet', parser.parse_args(argv))


def bench(argv: Sequence[str] | None = None) -> int:
    """Time the detector and its stages with every engine available here, and a naive pipeline; prints a table."""
    words = sys.argv[1:] if argv is None else list(argv)
    epilog = 'Each case runs in its own process; compared cases take turns.'
    parser = argparse.ArgumentParser(prog='bench', description=bench.__doc__, epilog=epilog)
    parser.add_argument('--config', type=Path, help='measure this parameter file instead of the built-in settings')
    add_settings(parser, 'options of the detector, set in every case')
    only = "measure only these settings or cases, such as cpu 'paper/openvino*'"
    parser.add_argument('--only', nargs='+', default=[], metavar='CASE', help=only)
    parser.add_argument('--input', default='', help='folder of frames, video or bag (default: render a 640x480 clip)')
    frames = 'frames of the input, played forwards and backwards (default: %(default)s)'
    parser.add_argument('--frames', type=positive_int, default=24, help=frames)
    parser.add_argument('--quick', action='store_true', help='smallest settings, two rounds; only to see that it runs')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the figures as JSON')
    return _start('bench.measure', 'run', parser.parse_args(words, argparse.Namespace(words=words)))


def quantise(argv: Sequence[str] | None = None) -> int:
    """Measure on rendered scenes the activation ranges that precision int8 needs; writes NAME-int8.safetensors."""
    parser = argparse.ArgumentParser(prog='quantise', description=quantise.__doc__)
    parser.add_argument('model', metavar='MODEL.safetensors', type=Path, nargs='?', help="default: the package's own")
    samples = 'rendered image pairs at each input size (default: %(default)s)'
    parser.add_argument('--samples', type=positive_int, default=48, help=samples)
    parser.add_argument('--out', type=Path, metavar='FILE', help='default: NAME-int8.safetensors next to the model')
    return _start('programs.models', 'write_ranges', parser.parse_args(argv))


def export_onnx(argv: Sequence[str] | None = None) -> int:
    """Export the networks of a configuration to ONNX, for use outside this package."""
    parser = argparse.ArgumentParser(prog='export_onnx', description=export_onnx.__doc__)
    parser.add_argument('out', metavar='FOLDER', type=Path, help='folder for the .onnx files')
    parser.add_argument('--config', type=Path, help='parameter file of the node, such as config/gpu.yaml')
    add_settings(parser, 'options of the detector, such as height=192')
    return _start('programs.models', 'write_onnx', parser.parse_args(argv))


def convert_weights(argv: Sequence[str] | None = None) -> int:
    """Convert the TensorFlow checkpoints released by the authors of the paper to model files."""
    parser = argparse.ArgumentParser(prog='convert_weights', description=convert_weights.__doc__)
    what = 'TensorFlow checkpoint: its prefix, one of its files, or its folder'
    parser.add_argument('input', metavar='INPUT', type=Path, help=what)
    parser.add_argument('output', metavar='OUTPUT.safetensors', type=Path, help='model file to write')
    which = 'which of the two networks in the checkpoint to convert (default: %(default)s)'
    parser.add_argument('--network', choices=('generator', 'inpainter'), default='generator', help=which)
    form = 'form of flow that the network was trained on (default: %(default)s, as released)'
    parser.add_argument('--flow-input', choices=('normalised', 'residual'), default='normalised', help=form)
    parser.add_argument('--height', type=positive_int, default=192, help='height of its input (default: %(default)s)')
    parser.add_argument('--width', type=positive_int, default=384, help='width of its input (default: %(default)s)')
    return _start('programs.weights', 'import_weights', parser.parse_args(argv))


def get_weights(argv: Sequence[str] | None = None) -> int:
    """Download the published weights of a flow network after you accept their licence; no other program downloads."""
    parser = argparse.ArgumentParser(prog='get_weights', description=get_weights.__doc__)
    parser.add_argument('network', choices=('raft_small', 'pwcnet'), help='flow network, named as in flow.backend')
    parser.add_argument('--accept-licence', action='store_true', help='accept the licence without being asked')
    return _start('programs.weights', 'get_weights', parser.parse_args(argv))


def render(argv: Sequence[str] | None = None) -> int:
    """Render a flight over a world of planes, with exact ground truth.

    OUT holds frames/ and masks/ (PNG), instances/ (PNG, number of the moving object), depth/ (TIFF, float32 metres
    along the optical axis, infinite in the sky), trajectory.txt (TUM: stamp, position, quaternion of the optical frame
    in odom), camera.json; with --flow also flow/ (.flo, to the next frame) and occluded/ (PNG); with --bag a rosbag2.
    """
    parser = argparse.ArgumentParser(prog='render', description=render.__doc__)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--frames', type=positive_int, default=80, help='length of the clip (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=7, help='same seed, same pixels (default: %(default)s)')
    parser.add_argument('--height', type=int, default=360, help='height of the frames, pixels (default: %(default)s)')
    parser.add_argument('--width', type=int, default=640, help='width of the frames, pixels (default: %(default)s)')
    parser.add_argument('--still', action='store_true', help='no object moves on its own')
    parser.add_argument('--motion', default='', help='camera motion, such as orbit (default: random)')
    parallax = 'objects that stand up from the ground, 0: none, 2: many and near (default: %(default)g)'
    parser.add_argument('--parallax', type=float, default=1.0, help=parallax)
    parser.add_argument('--flow', action='store_true', help='write the flow from each frame to the next')
    parser.add_argument('--bag', action='store_true', help='write OUT/bag with images, CameraInfo, masks, tf from odom')
    return _start('programs.clips', 'write_flight', parser.parse_args(argv))
