"""Attacks on the real node over DDS; after each a good clip gives exactly the masks that a fresh node gives."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import HEIGHT, LOSSLESS, WIDTH, Bench, header, scene, stamp_of
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from test_hostile_motion import Liar

from moving_object_detector.media.codecs import encode_jpeg, encode_png
from moving_object_detector.nodes.messages import compressed_message, image_message

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

CLIP = 8
STORM = 7.0
"""Seconds of each storm."""
FIRST = 10**15
"""Stamp of the good clip, far from whatever an attack sends."""
ENCODINGS = (
    *('rgb8', 'bgr8', 'rgba8', 'mono8', 'mono16', 'bayer_rggb8', 'bayer_rggb16', 'yuv422', 'yuyv', 'nv12', '16UC1'),
    *('', 'quux', 'rgb8\n', '\x1b[31mred', 'RGB8', 'é' * 50, 'x' * 100_000, '32FC1', '8UC5', '../../etc', '%s%n'),
)
SIZES = (0, 1, 2, 15, 16, 17, 64, 96, 128, 4096, 4097, 65535, 2**31 - 1, 2**31, 2**32 - 1)
FORMATS = (
    'jpeg',
    'png',
    'jpg',
    'rgb8; jpeg compressed bgr8',
    'gif',
    '',
    '\x1b]0;x\x07',
    'x' * 100_000,
    'compressedDepth',
)
RUNTIME = {
    'mask.threshold': (0.5, [0.1, 0.9, 7.0, 'x']),
    'mask.min_area': (0.0005, [0.0, 0.5, -1.0]),
    'gate.min_motion': (1.0, [0.0, 1000.0, float('nan')]),
    'estimate': ('refined', ['zero_lag', 'neither']),
    'load.target_rate': (0.0, [1.0, 30.0, 1000.0]),
    'refinement.method': ('grid_crf', ['none', 'crf']),
}
FIXED = {'window.past': (1, [0, 3, 99]), 'window.future': (1, [0, 2]), 'input.queue': (30, [1, 5])}


class Good:
    """The good clip, sent to a node, as the bytes of its masks in order."""

    def __init__(self, detect, encoding='rgb8'):
        self._detect = detect
        self._encoding = encoding

    def masks(self):
        detect = self._detect
        detect.masks = detect.subscribe(Image, f'{detect.name}/mask')
        publisher = detect.publisher(Image if self._encoding == 'rgb8' else CompressedImage)
        detect.wait(publisher.get_subscription_count, 'subscription to the images')
        detect.stamp = FIRST
        # A mask comes only when the node knows of the subscription.
        detect.wait(lambda: detect.masks, 'mask', meanwhile=lambda: detect.send(encoding=self._encoding))
        for _ in range(5):
            detect.afresh(quiet=1.0)
            before = detect.counts()
            masks = self._show(detect.stamp)
            detect.wait_idle()
            after = detect.counts()
            came = {name: after[name] - before[name] for name in after if after[name] > before[name]}
            # Else something else came late, and frames of the clip were computed together with it.
            if came == {'received': CLIP + 1, 'processed': CLIP + 1, 'published': CLIP}:
                return masks
            print('once more, since the node counted', came)
        pytest.fail(f'the clip was never alone: {came}; {detect.status}')

    def _show(self, first):
        """Send the clip, each frame when the one before is computed, else that would be skipped."""
        detect = self._detect
        # One more, without which the last mask would wait.
        for index in range(CLIP + 1):
            done = len(detect.timings)
            detect.send(encoding=self._encoding)
            detect.wait(
                lambda index=index, done=done: len(self._found(first)) >= index and len(detect.timings) > done,
                'a mask for the image before',
            )
        return [bytes(mask.data) for mask in self._found(first)]

    def _found(self, first):
        return [mask for mask in self._detect.masks if stamp_of(mask) > first]


def start(start_detect, **options):
    compressed = options.pop('compressed', False)
    if not compressed:
        return start_detect({**LOSSLESS, 'input.timeout': 600.0}, **options)
    overrides = {name.replace('/camera/image_raw', '/jpeg/compressed'): value for name, value in LOSSLESS.items()}
    return start_detect(
        {**overrides, 'transport': 'compressed', 'input.timeout': 600.0},
        ['-r', 'image:=/jpeg'],
        topic='/jpeg/compressed',
    )


@pytest.fixture(scope='module')
def expected(start_detect):
    """What a fresh node gives for raw images."""
    detect = start(start_detect)
    masks = Good(detect).masks()
    assert any(any(mask) for mask in masks)
    detect.end(limit=120)
    return masks


@pytest.fixture(scope='module')
def expected_compressed(start_detect):
    detect = start(start_detect, compressed=True)
    masks = Good(detect, 'jpeg').masks()
    detect.end(limit=120)
    return masks


def check(detect, masks, expected):
    """Compare masks, and look at what the node has written and counted meanwhile."""
    different = {
        index: int((np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)).sum())
        for index, (one, other) in enumerate(zip(masks, expected, strict=True))
        if one != other
    }
    assert not different, f'other masks than a fresh node: {different}; the node wrote\n' + '\n'.join(
        detect.lines[-60:]
    )
    assert not [line for line in detect.lines if 'Traceback' in line or 'please report' in line]
    # Words from outside neither forge lines nor reach the terminal's controls, and are cut.
    assert not [line for line in detect.lines if '\x1b' in line or len(line) > 3000]
    assert detect.counts()['failed'] == 0


def bombard(detect, publisher, make, seconds):
    """Publish what ``make`` gives for some seconds; return how many."""
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        publisher.publish(make())
        count += 1
        if count % 20 == 0:
            detect.spin(0.01)
    assert detect.process.poll() is None
    print(f'{count} messages')
    return count


def raw_image(rng):
    message = image_message(scene(rng.randrange(20)), 'rgb8', header(rng.randrange(10**12)))
    for _ in range(rng.randrange(1, 4)):
        match rng.randrange(7):
            case 0:
                message.encoding = rng.choice(ENCODINGS)
            case 1:
                message.height = rng.choice(SIZES)
            case 2:
                message.width = rng.choice(SIZES)
            case 3:
                message.step = rng.choice((0, 1, 383, 384, 385, 2**31, 2**32 - 1))
            case 4:
                message.data = rng.randbytes(rng.choice((0, 1, 36863, 36865, 100_000)))
            case 5:
                message.header.stamp.sec = rng.choice((-(2**31), -1, 0, 2**31 - 1))
                message.header.stamp.nanosec = rng.choice((0, 10**9, 2**32 - 1))
            case 6:
                message.header.frame_id = rng.choice(('\x1b[2J', 'x' * 10_000, 'a\nb'))
                message.is_bigendian = rng.randrange(256)
    return message


def compressed_image(rng):
    image = scene(rng.randrange(20))
    data = bytearray(rng.choice((encode_jpeg, encode_png))(image).tobytes())
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randrange(1, 30)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            # The middle is missing, the end is there.
            begin = rng.randrange(200, len(data) // 2)
            del data[begin : rng.randrange(begin, len(data) - 2)]
        case 3:
            # A header that promises far more than there is.
            data = bytearray(encode_jpeg(image).tobytes())
            place = data.index(b'\xff\xc0')
            data[place + 5 : place + 9] = rng.choice((b'\xff\xdc\x3e\x80', b'\xff\xff\xff\xff', b'\x00\x00\x00\x00'))
        case 4:
            png = bytearray(encode_png(image).tobytes())
            png[16:24] = rng.choice((b'\x00\x00\x75\x30\x00\x00\x75\x30', b'\x7f\xff\xff\xff\x7f\xff\xff\xff'))
            data = png
        case 5:
            kind = rng.choice(('.bmp', '.tiff', '.webp', '.ppm', '.jp2'))
            data = bytearray(cv2.imencode(kind, image)[1].tobytes())
        case 6:
            data = bytearray(b'GIF89a\xff\xff\xff\xff\xf0\x00\x00' + rng.randbytes(rng.randrange(40)))
    message = compressed_message(np.frombuffer(bytes(data), np.uint8), header(rng.randrange(10**12)))
    message.format = rng.choice(FORMATS) if rng.random() < 0.3 else message.format
    return message


def peak_memory(detect):
    status = Path(f'/proc/{detect.process.pid}/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]) / 1024


def test_hostile_raw_images(start_detect, expected, seconds):
    detect, rng = start(start_detect), random.Random(1)
    good = Good(detect)
    assert good.masks() == expected
    before = peak_memory(detect)
    bombard(detect, detect.publisher(), lambda: raw_image(rng), seconds)
    check(detect, good.masks(), expected)
    assert peak_memory(detect) - before < 300, 'MB'
    detect.end(limit=120)


def test_hostile_compressed_images(start_detect, expected_compressed, seconds):
    detect, rng = start(start_detect, compressed=True), random.Random(2)
    good = Good(detect, 'jpeg')
    assert good.masks() == expected_compressed
    before = peak_memory(detect)
    bombard(detect, detect.publisher(CompressedImage), lambda: compressed_image(rng), seconds)
    check(detect, good.masks(), expected_compressed)
    # A header of 65500x16000 pixels costs nothing.
    assert peak_memory(detect) - before < 300, 'MB'
    detect.end(limit=120)


def test_messages_that_do_not_deserialise(start_detect, expected, seconds):
    detect, rng = start(start_detect), random.Random(3)
    good = Good(detect)
    assert good.masks() == expected

    def make():
        data = bytearray(serialize_message(raw_image(rng) if rng.random() < 0.5 else detect.message(stamp=5)))
        match rng.randrange(3):
            case 0:
                for _ in range(rng.randrange(1, 20)):
                    data[rng.randrange(min(len(data), 80))] ^= 1 << rng.randrange(8)
            case 1:
                del data[rng.randrange(4, len(data)) :]
            case 2:
                data = bytearray(data[:4] + rng.randbytes(rng.randrange(200)))
        return bytes(data)

    bombard(detect, detect.publisher(), make, seconds)
    check(detect, good.masks(), expected)
    # What cannot be deserialised is counted and said, though not as often as it comes.
    counts, said = detect.counts(), [line for line in detect.lines if 'deserialise' in line]
    assert counts['invalid'] > 0
    assert 1 <= len(said) <= 10
    detect.end(limit=120)


def ros(message, given):
    """Fill a ROS message with the fields of another object."""
    for name, value in vars(given).items():
        if isinstance(value, SimpleNamespace):
            ros(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def test_what_claims_to_know_the_motion(start_detect, expected, seconds):
    """Odometry and CameraInfo of any content, beside images that are all computed."""
    mount = {'odometry.topic': '/odom', 'odometry.extrinsics': '0.3 0 0 -0.5 0.5 -0.5 0.5'}
    detect, liar = start_detect({**LOSSLESS, 'input.timeout': 600.0, **mount}), Liar(4)
    good = Good(detect)
    assert good.masks() == expected
    publishers = [detect.publisher(CameraInfo, '/camera/camera_info'), detect.publisher(Odometry, '/odom')]
    before, detect.index = detect.counts(), 0

    def make():
        if detect.index * 20 < len(made):
            liar.now = detect.stamp
            detect.send()
        if len(made) % 10 == 0:
            info = liar.info()
            # Mostly of these images, so that the lens is looked at.
            if liar.rng.random() < 0.8:
                info.width, info.height = WIDTH, HEIGHT
            publishers[0].publish(ros(CameraInfo(), info))
        made.append(ros(Odometry(), liar.odometry()))
        return made[-1]

    made = []
    bombard(detect, publishers[1], make, seconds)
    detect.wait(lambda: detect.counts()['received'] == before['received'] + detect.index, 'all images')
    said = {message.rpartition(':')[2][:40] for message in (one.message for one in detect.statuses)}
    print(f'{detect.index} images among them; the node said', said)
    # With a CameraInfo of other images it is as it was.
    publishers[0].publish(CameraInfo(width=7, height=7))
    detect.wait_status(lambda _, values: values['intrinsics'] == 'assumed', 'assumed intrinsics', detect.send)
    check(detect, good.masks(), expected)
    detect.end(limit=120)


class Storm:
    """Random transitions, parameters, services and images; ``fresh`` says that only a new process can go on."""

    def __init__(self, detect, rng, *, shutdowns):
        self._detect = detect
        self._rng = rng
        self._shutdowns = shutdowns
        self.done = []
        self.ended = False
        self._asked = []

    def step(self):  # noqa: C901 - a table of what may happen
        detect, rng = self._detect, self._rng
        match rng.randrange(8):
            case 0 | 1:
                wanted = rng.choice(['configure', 'activate', 'deactivate', 'cleanup', 'destroy', 77, 'activate', 255])
                self._later(f'{wanted}', detect.ask_change(wanted))
            case 2:
                name, (_, values) = rng.choice(list({**RUNTIME, **FIXED}.items()))
                self._set(name, rng.choice(values))
            case 3:
                self._later('type 77', self._unknown_type())
            case 4:
                self._later('reset', detect.ask(Trigger, f'{detect.name}/reset'))
            case 5:
                on = rng.random() < 0.7
                self._later(f'enable {on}', detect.ask(SetBool, f'{detect.name}/enable', data=on))
            case 6:
                self.done.append('images')
                for _ in range(rng.randrange(12)):
                    detect.publisher().publish(raw_image(rng))
            case 7:
                self.done.append('good images')
                for index in range(rng.randrange(6)):
                    moment = FIRST - 10**12 + index * 33_000_000
                    detect.publisher().publish(image_message(scene(index), 'rgb8', header(moment)))
        if self._shutdowns and rng.random() < 0.01:
            answer = detect.ask_change('shutdown')
            self._later('shutdown', answer)
            detect.wait(answer.done, 'answer to shutdown', limit=120)
            # In the middle of another transition it is refused.
            self.ended = answer.result().success
        for _ in range(rng.randrange(4)):
            detect.spin(0.01)

    def _set(self, name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        kind = self._rng.choice((SetParameters, SetParametersAtomically))
        service = 'set_parameters' if kind is SetParameters else 'set_parameters_atomically'
        self._later(f'{name}={value}', self._detect.ask(kind, f'{self._detect.name}/{service}', parameters=[parameter]))

    def _unknown_type(self):
        parameter = ParameterMessage(name='mask.threshold')
        parameter.value.type = 77
        return self._detect.ask(SetParameters, f'{self._detect.name}/set_parameters', parameters=[parameter])

    def _later(self, name, future):
        self.done.append(name)
        self._asked.append(future)
        if self._rng.random() < 0.6:
            self._detect.wait(future.done, f'answer to {name}', limit=120)

    def restore(self):
        """Bring the node to where a fresh one is, by a way that is chosen at random."""
        detect, rng = self._detect, self._rng
        # Else one that is answered late would change what is restored.
        detect.wait(lambda: all(future.done() for future in self._asked), 'answers to all requests', limit=120)
        if rng.random() < 0.5 or detect.state() != 'active':
            for wanted in ('deactivate', 'cleanup'):
                detect.change(wanted)
            assert detect.state() == 'unconfigured', self.done
            assert all(result.successful for result in self._defaults({**RUNTIME, **FIXED}))
            assert detect.change('configure'), detect.lines[-20:]
            assert detect.change('activate'), detect.lines[-20:]
        else:
            fixed = detect.get(*FIXED)
            if fixed != [value for value, _ in FIXED.values()]:
                self.done.append('fixed parameters are others')
                for wanted in ('deactivate', 'cleanup'):
                    assert detect.change(wanted), detect.lines[-20:]
                assert all(result.successful for result in self._defaults({**RUNTIME, **FIXED}))
                assert detect.change('configure'), detect.lines[-20:]
                assert detect.change('activate'), detect.lines[-20:]
            assert all(result.successful for result in self._defaults(RUNTIME))
        assert detect.call(SetBool, f'{detect.name}/enable', data=True).success

    def _defaults(self, options):
        return self._detect.set(**{name.replace('.', '__'): value for name, (value, _) in options.items()})


def one_storm(ros_environment, expected, seed, *, shutdowns):
    """Let a storm rage over a new node, bring it back and hold its masks to those of a fresh one."""
    rng = random.Random(seed)
    with ExitStack() as running:

        def begin(*arguments):
            return running.enter_context(Bench(ros_environment, *arguments))

        detect = start(begin)
        detect.wait_state('active')
        # While the node is inactive nobody would subscribe.
        detect.publisher()
        storm = Storm(detect, rng, shutdowns=shutdowns)
        deadline = time.monotonic() + STORM
        while time.monotonic() < deadline and not storm.ended:
            storm.step()
        if storm.ended:
            detect.wait_state('finalized')
            detect.end(limit=120)
            assert detect.process.returncode == 0
            detect = start(begin)
        else:
            storm.restore()
        check(detect, Good(detect).masks(), expected)
        print(f'seed {seed}: {len(storm.done)} steps, the end {storm.done[-5:]}', flush=True)
        detect.end(limit=120)


@pytest.mark.parametrize('shutdowns', [False, True])
def test_a_storm_of_requests(ros_environment, expected, effort, first_seed, shutdowns):
    found = []
    for seed in range(first_seed, first_seed + int(2 * effort)):
        try:
            one_storm(ros_environment, expected, seed, shutdowns=shutdowns)
        except (AssertionError, pytest.fail.Exception) as error:  # noqa: PERF203 - one finding does not end the search
            print(f'seed {seed}: {error}', flush=True)
            found.append(f'seed {seed}: {error}')
    assert not found, '\n'.join(found)
