"""Fixtures that several test folders share."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

# A shell starts its background jobs with Ctrl-C ignored, which every program that a test starts would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
SHARED = ROOT.parent / 'shared'
"""Published data and weights, which are no part of the project."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, 'fixturenames', ())
        if 'shared' in names:
            item.add_marker('shared')
        if 'ros_environment' in names:
            item.add_marker('live')


def pytest_runtest_setup(item: pytest.Item) -> None:
    # From here, so that the summary says it once, with the number of tests.
    if item.get_closest_marker('shared') and not SHARED.is_dir():
        pytest.skip('published data and weights are needed in ../shared')


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of published data and weights; tests that use it are marked ``shared``."""
    return SHARED


def _is_free(domain: int, held: ExitStack) -> bool:
    """Tell whether no other run and no DDS participant of this machine is in the domain; it is ``held`` from now on.

    By a lock, since participants come and go while a run lasts, and by the first unicast port.
    """
    with ExitStack() as tried:
        try:
            lock = Path(tempfile.gettempdir()) / f'moving_object_detector_domain_{domain}'
            fcntl.flock(tried.enter_context(lock.open('a')), fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(('', 7400 + 250 * domain + 10))
        except OSError:
            return False
        held.push(tried.pop_all())
    return True


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    """Keep engines that tests build out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture
def full_disk():
    """What makes writing fail after some bytes of a file, by the kernel's own limit, while a context lasts."""

    @contextmanager
    def full(after: int = 0) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture(scope='session')
def load_launch_file():
    """What imports a launch file as a module."""

    def load(path: Path):
        if importlib.util.find_spec('launch_ros') is None:
            pytest.skip('launch_ros is not installed here: it comes with a sourced ROS 2, not as a wheel')
        spec = importlib.util.spec_from_file_location(path.name.replace('.launch.py', '_launch'), path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='session')
def ros_environment(own_cache) -> Iterator[dict[str, str]]:
    """Environment for processes that talk over ROS 2 with nobody but each other."""
    if importlib.util.find_spec('rclpy') is None:
        pytest.skip('rclpy is not installed here: source ROS 2 or install its wheels')
    first = os.getpid() % 51
    with ExitStack() as held:
        domain = next((50 + (first + k) % 51 for k in range(51) if _is_free(50 + (first + k) % 51, held)), None)
        if domain is None:
            pytest.skip('every ROS domain from 50 to 100 is in use on this machine')
        yield os.environ | {
            'ROS_DOMAIN_ID': str(domain),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_LOCALHOST_ONLY': '1',
            'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]),
            'PYTHONUNBUFFERED': '1',
        }


@pytest.fixture(scope='session')
def pictures() -> list[np.ndarray]:
    """Twelve different RGB images of 48x32 pixels, smooth enough for JPEG and video."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (12, 4, 6, 3), dtype=np.uint8)
    return [cv2.resize(image, (48, 32), interpolation=cv2.INTER_CUBIC) for image in noise]


@pytest.fixture(scope='session')
def picture_folder(tmp_path_factory, pictures) -> Path:
    """The pictures as frame0.png to frame11.png."""
    folder = tmp_path_factory.mktemp('frames')
    for index, image in enumerate(pictures):
        cv2.imwrite(str(folder / f'frame{index}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture(scope='session')
def write_davis():
    """What writes DAVIS 2016 in its published layout: of each sequence a list of frames (BGR) and masks."""

    def write(root: Path, split: str, sequences: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> Path:
        rows = []
        for name, frames in sequences.items():
            for number, pictures in enumerate(frames):
                files = f'JPEGImages/480p/{name}/{number:05d}.jpg', f'Annotations/480p/{name}/{number:05d}.png'
                for file, picture in zip(files, pictures, strict=True):
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(root / file), picture)
                rows.append(f'/{files[0]} /{files[1]}')
        listing = root / 'ImageSets' / '480p' / f'{split}.txt'
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text('\n'.join(rows))
        return root

    return write


@pytest.fixture
def start(ros_environment):
    """Start programs of the package as processes; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def begin(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, '-m', 'moving_object_detector.programs', program, *map(str, arguments)]
        process = subprocess.Popen(
            command, env=ros_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def listener(ros_environment, monkeypatch):
    """A node of this process in the domain of the programs, with the executor that spins it."""
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'):
        monkeypatch.setenv(name, ros_environment[name])
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
