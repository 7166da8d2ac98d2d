"""The states of the real node, what it refuses to start with, and how it gets over that."""

from __future__ import annotations

import itertools
import pickle
import re
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import LOSSLESS, header, scene
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from moving_object_detector.common.files import generator_path
from moving_object_detector.common.options import options_of
from moving_object_detector.nodes.messages import image_message
from moving_object_detector.nodes.parameters import NodeConfig


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Model files that must not be loaded, by what is wrong with them, and what the node says."""
    folder = tmp_path_factory.mktemp('models')
    good = generator_path().read_bytes()
    (folder / 'truncated.safetensors').write_bytes(good[: len(good) // 2])
    (folder / 'garbage.safetensors').write_bytes(b'garbage' * 1000)
    (folder / 'empty.safetensors').write_bytes(b'')
    tensors = load_file(generator_path())
    name = next(iter(tensors))
    # As a version wrote it that knew no checksums.
    earlier = {key: value for key, value in metadata_of(generator_path()).items() if key != 'sha256'} | {'format': '1'}
    save_file({**tensors, name: torch.zeros(3)}, folder / 'shape.safetensors', earlier)
    with (folder / 'pickle.safetensors').open('wb') as file:
        pickle.dump(Trap(folder / 'executed'), file)
    torch.save({'trap': Trap(folder / 'executed')}, folder / 'torch.safetensors')
    return folder


def metadata_of(path):
    from safetensors import safe_open

    with safe_open(path, framework='pt') as file:
        return file.metadata()


REFUSED = {
    'missing': r'missing\.safetensors: no such model file; check the path',
    'truncated': r'truncated\.safetensors: is not a whole safetensors file .*; copy or download it again',
    'garbage': r'garbage\.safetensors: is not a whole safetensors file',
    'empty': r'empty\.safetensors: is empty; copy or download it again',
    'shape': r'shape\.safetensors: is not a generator of this version: .* is \(3,\) and should be \(',
    'pickle': r'pickle\.safetensors: is a PyTorch file, which can hold code and is not loaded; give',
    'torch': r'torch\.safetensors: is a PyTorch file, which can hold code and is not loaded',
}


@pytest.fixture(scope='module')
def detect(start_detect):
    """A node that is told to start by itself, and cannot."""
    wrong = {
        **LOSSLESS,
        'mask.threshold': 7.0,
        'refinement.method': 'gided',
        'window.past': 'many',
        'windows.future': 3,
        'quux': True,
        'input.timeout': 1.0,
    }
    return start_detect(wrong)


def test_wrong_parameters_are_said_and_refused(detect):
    detect.wait_line(r'\[WARN\].*there is no parameter windows\.future; did you mean window\.future\?')
    detect.wait_line(r'\[WARN\].*there is no parameter quux; see docs')
    detect.wait_line(
        r'\[ERROR\].*configure refused: window\.past is .many., but takes a whole number from 0 to 20; '
        r"refinement\.method is 'gided', but takes one of none, crf, grid_crf; "
        r'mask\.threshold is 7\.0, but takes a number from 0\.01 to 0\.99\. Correct it '
        r'\(ros2 param set /detect \.\.\.\), then run: ros2 lifecycle set /detect configure'
    )
    assert detect.state() == 'unconfigured'
    detect.wait_status(lambda message, _: 'mask.threshold is 7.0' in message, 'the reason')
    assert detect.status.level == DiagnosticStatus.ERROR
    # The defaults stand where a value was wrong.
    assert detect.get('mask.threshold', 'window.past', 'window.future') == [0.5, 5, 1]


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({'mask__threshold': 7.0}, r'mask\.threshold'),
        ({'mask__threshold': float('nan')}, r'mask\.threshold'),
        ({'mask__threshold': 'half'}, r'expected .*DOUBLE.* got .*STRING'),
        ({'window__past': -1}, r'window\.past'),
        ({'engine': 'tensorflow'}, r"engine is 'tensorflow', but takes one of auto, torch"),
        ({'no_such_parameter': 1}, r'undeclared parameter'),
    ],
)
def test_wrong_values_are_rejected_with_a_reason(detect, values, reason):
    (result,) = detect.set(**values)
    assert not result.successful
    assert re.search(reason, result.reason)


def test_a_request_that_is_no_parameter_does_not_deafen_the_node(detect):
    parameter = Parameter('mask.threshold', value=0.5).to_parameter_msg()
    parameter.value.type = 99
    (result,) = detect.call(SetParameters, '/detect/set_parameters', parameters=[parameter]).results
    assert not result.successful
    assert '99' in result.reason
    assert detect.state() == 'unconfigured'


def test_putting_them_right_lets_it_configure(detect):
    results = detect.set(mask__threshold=0.5, refinement__method='none', window__past=1, window__future=1)
    assert all(result.successful for result in results)
    assert detect.change('configure')
    assert detect.state() == 'inactive'
    detect.wait_status(
        lambda message, values: values['state'] == 'inactive' and 'lifecycle set /detect activate' in message,
        'inactive',
    )
    assert detect.status.level == DiagnosticStatus.OK
    assert detect.change('cleanup')
    assert detect.state() == 'unconfigured'


def test_options_that_leave_no_masks_or_no_topic_are_refused(detect):
    assert all(one.successful for one in detect.set(estimate='zero_lag', window__past=0))
    assert not detect.change('configure')
    detect.wait_line(r'configure refused: estimate is zero_lag.*window\.past')
    assert all(one.successful for one in detect.set(window__past=1, odometry__topic='/odom/'))
    assert not detect.change('configure')
    detect.wait_line(r"configure refused: odometry\.topic: '/odom/' is not a valid name")
    assert all(one.successful for one in detect.set(estimate='refined', window__past=0, odometry__topic=''))
    assert detect.change('configure')
    (refused,) = detect.set(estimate='zero_lag')
    assert 'window.past' in refused.reason
    assert detect.change('cleanup')
    assert detect.set(window__past=1)[0].successful


@pytest.mark.parametrize('fault', REFUSED)
def test_a_model_that_cannot_be_loaded(detect, models, fault):
    lines = len(detect.lines)
    assert detect.set(model=str(models / f'{fault}.safetensors'))[0].successful
    assert not detect.change('configure')
    line = detect.wait_line(r'\[ERROR\].*configure refused', lines)
    assert re.search(f'{re.escape(str(models))}/{REFUSED[fault]}', line)
    assert detect.state() == 'unconfigured'
    assert not detect.change('activate')
    detect.wait_status(lambda message, _: re.search(REFUSED[fault], message), 'the reason')
    assert detect.status.level == DiagnosticStatus.ERROR
    assert not (models / 'executed').exists()


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({'height': 30}, r'height is 30; the generator takes multiples of 4'),
        ({'device': 'gpu'}, r"device is 'gpu', but takes auto, cpu, cuda or cuda:N"),
        ({'device': 'cuda:31'}, r"device is 'cuda:31', but PyTorch .* sees \d+ CUDA devices; set device to cpu"),
        ({'flow__backend': 'pwcnet'}, r'flow\.backend is pwcnet, .*get_weights pwcnet'),
        ({'window__past': 0, 'window__future': 0}, r'window\.past and window\.future are both 0'),
    ],
)
def test_values_that_only_loading_can_judge(detect, values, reason):
    right = {
        'height': 64,
        'device': 'auto',
        'flow__backend': 'dis',
        'window__past': 1,
        'window__future': 1,
        'model': '',
    }
    lines = len(detect.lines)
    assert all(result.successful for result in detect.set(**{**right, **values}))
    assert not detect.change('configure')
    detect.wait_line(f'configure refused: {reason}', lines)
    assert all(result.successful for result in detect.set(**right))


def test_transitions_that_the_state_does_not_have_are_refused(detect):
    lines = len(detect.lines)
    for transition in ('activate', 'deactivate', 'cleanup', 'nonsense', 3, 4, 2, 77):
        assert not detect.change(transition)
        assert detect.state() == 'unconfigured'
    detect.wait_line(r'transition 3 refused: the node is unconfigured', lines)
    assert not detect.call(Trigger, '/detect/reset').success


def test_a_full_cycle_twice(detect):
    for _ in range(2):
        assert detect.change('configure')
        assert not detect.change('configure')
        assert detect.state() == 'inactive'
        assert detect.node.count_subscribers('/camera/image_raw') == 0
        assert detect.change('activate')
        assert detect.state() == 'active'
        detect.watch_masks()
        detect.show(4)
        detect.wait(lambda: len(detect.masks) == 3, 'masks')
        detect.check_masks()
        # What cannot change now is refused, with the way to do it; what can is taken.
        refused, taken = detect.set(window__past=2, mask__threshold=0.6)
        assert not refused.successful
        assert 'can change only while the node is unconfigured; deactivate and clean it up first' in refused.reason
        assert taken.successful
        assert detect.get('window.past', 'mask.threshold') == [1, 0.6]
        assert detect.change('deactivate')
        assert detect.state() == 'inactive'
        detect.masks.clear()
        detect.wait(lambda: detect.node.count_subscribers('/camera/image_raw') == 0, 'end of the subscription')
        detect.withdraw()
        detect.wait_status(
            lambda message, values: values['state'] == 'inactive' and 'lifecycle set /detect activate' in message,
            'inactive',
        )
        assert not detect.masks
        assert detect.change('activate')
        detect.show(3)
        detect.wait(lambda: len(detect.masks) >= 2, 'masks after the second activation')
        assert detect.change('deactivate')
        assert detect.change('cleanup')
        assert detect.state() == 'unconfigured'
        detect.wait(lambda: detect.node.count_publishers('/detect/mask') == 0, 'end of the topics')
        detect.withdraw()
        detect.wait_status(lambda _, values: values['state'] == 'unconfigured' and not values['engine'], 'unconfigured')


def resident_megabytes(process):
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


def test_memory_does_not_grow_from_cycle_to_cycle(detect):
    sizes = []
    for _ in range(8):
        assert detect.change('configure')
        assert detect.change('cleanup')
        sizes.append(resident_megabytes(detect.process))
    # A generator takes 6 MB, and a leak would take one in each of the five cycles.
    assert sizes[-1] - sizes[2] < 12


def test_transitions_while_images_pour_in(detect):
    """Whoever destroys what another thread waits for must not deafen the node, nor keep the detector alive."""
    lines = len(detect.lines)
    publisher = detect.node.create_publisher(Image, '/camera/image_raw', 10)
    message = image_message(scene(0), 'rgb8', header(0))
    stop = threading.Event()

    def pour():
        for stamp in itertools.count(1):
            message.header.stamp.sec, message.header.stamp.nanosec = stamp // 100, stamp % 100 * 10_000_000
            publisher.publish(message)
            if stop.wait(0.01):
                return

    thread = threading.Thread(target=pour)
    thread.start()
    sizes = []
    try:
        for _ in range(20):
            for transition, seconds in (('configure', 0.02), ('activate', 0.25), ('deactivate', 0), ('cleanup', 0)):
                assert detect.change(transition)
                time.sleep(seconds)
            sizes.append(resident_megabytes(detect.process))
    finally:
        stop.set()
        thread.join()
        detect.node.destroy_publisher(publisher)
    assert sizes[-1] - sizes[4] < 40
    assert not [line for line in detect.lines[lines:] if 'Traceback' in line or 'report this' in line]


def test_descriptors_say_what_each_parameter_takes(detect):
    options = {declared.name: declared for declared in options_of(NodeConfig)}
    answer = detect.call(DescribeParameters, '/detect/describe_parameters', names=list(options))
    assert len(answer.descriptors) == len(options)
    kinds = {bool: 1, int: 2, float: 3, str: 4}
    for described in answer.descriptors:
        declared = options[described.name]
        assert described.type == kinds[declared.kind]
        assert described.description.startswith(declared.description)
        assert ('at any time' in described.description) == declared.runtime
        ranges = [*described.integer_range, *described.floating_point_range]
        bounds = [(one.from_value, one.to_value) for one in ranges]
        assert bounds == ([] if declared.low is None else [(declared.low, declared.high)])
        if declared.choices:
            assert described.additional_constraints == 'one of ' + ', '.join(declared.choices)


def test_shutdown_is_the_end_until_ctrl_c(detect):
    assert detect.change('configure')
    assert detect.change('activate')
    assert detect.change('shutdown')
    assert detect.state() == 'finalized'
    detect.wait_status(lambda message, _: message == 'finalized', 'finalized')
    assert not detect.change('configure')
    assert detect.node.count_subscribers('/camera/image_raw') == 0
    assert detect.end() < 10
    assert detect.process.returncode == 0


def test_without_autostart_it_waits(start_detect):
    detect = start_detect({**LOSSLESS, 'autostart': False}, ['-r', '__node:=waiting'], node='/waiting')
    detect.wait_status(lambda message, _: message.startswith('unconfigured'), 'unconfigured')
    assert detect.state() == 'unconfigured'
    assert not [line for line in detect.lines if 'waiting]' in line]
    # The node is there before PyTorch, which takes its time.
    assert 'libtorch' not in Path(f'/proc/{detect.process.pid}/maps').read_text()
    # The state, parameters and services answer while a model loads.
    answer = detect.ask_change('configure')
    states = []
    while not answer.done():
        states.append(detect.state())
        assert detect.set(mask__threshold=0.4)[0].successful
        assert not detect.set(window__past=3)[0].successful or states[-1] == 'unconfigured'
        assert not detect.change('configure')
    assert answer.result().success
    assert 'configuring' in states
    assert detect.get('mask.threshold') == [0.4]
    assert detect.change('activate')
    masks = detect.subscribe(Image, '/waiting/mask')
    detect.wait(lambda: masks, 'mask', meanwhile=detect.send)


def test_a_value_that_ros_would_leave_out_is_refused(start_detect, tmp_path):
    # rcl keeps one value for each type, and takes the whole number, though the other one came last.
    file = tmp_path / 'params.yaml'
    file.write_text(
        '/**:\n  ros__parameters:\n    load.target_rate: 10\n    mask.threshold: 0.25\n    gate.min_motion: 1\n'
    )
    given = {'load.target_rate': 5.5, 'mask.threshold': '4e-1', 'gate.min_motion': 1.0}
    detect = start_detect(given, ['-r', '__node:=twice', '--params-file', str(file)], node='/twice')
    line = detect.wait_line(r'configure refused: ')
    assert re.search(r'load\.target_rate is given as 10 and as 5\.5', line)
    assert 'mask.threshold' not in line
    assert 'gate.min_motion' not in line
    assert detect.set(load__target_rate=5.5)[0].successful
    assert detect.change('configure')
    assert detect.get('load.target_rate', 'mask.threshold', 'gate.min_motion') == [5.5, 0.4, 1.0]


@pytest.mark.parametrize('kind', [SetParameters, SetParametersAtomically])
def test_a_parameter_of_an_unknown_type_is_refused(start_detect, kind):
    detect = start_detect({'autostart': False}, ['-r', '__node:=typed'], node='/typed')
    good, bad = Parameter('mask.threshold', value=0.4).to_parameter_msg(), ParameterMessage(name='mask.min_area')
    bad.value.type = 77
    service = 'set_parameters' if kind is SetParameters else 'set_parameters_atomically'
    answer = detect.call(kind, f'/typed/{service}', parameters=[good, bad])
    if kind is SetParameters:
        assert [result.successful for result in answer.results] == [True, False]
        assert '77' in answer.results[1].reason
        assert detect.get('mask.threshold') == [0.4]
    else:
        assert not answer.result.successful
        assert detect.get('mask.threshold') == [0.5]
    assert not [line for line in detect.lines if 'Traceback' in line]
    detect.end()
