"""A real ``detect`` in a process of its own, and a client of it over DDS."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from std_srvs.srv import Trigger

from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.nodes.messages import compressed_message, image_message

# Loading PyTorch takes seconds, and many more where others use the machine.
PATIENCE = 180
STILL = 60
"""Statuses in a row, one a second, in which an active node counts nothing new and has nothing to do: none will come."""
SETTLED = 30
"""The same where all images have been sent and are only to be counted."""
PERIOD = 33_000_000
HEIGHT, WIDTH = 96, 128
# Small and quick, with a window that is still both past and future.
SMALL = {'engine': 'torch', 'threads': 1, 'height': 64, 'width': 128, 'window.past': 1, 'window.future': 1}
# Every image is to arrive: nothing is to be lost before the node can count it.
LOSSLESS = {
    'qos_overrides./camera/image_raw.subscription.reliability': 'reliable',
    'qos_overrides./camera/image_raw.subscription.depth': 600,
}


def object_box(index):
    """Return (x, y, side) of what moves in :func:`scene`: three pixels a frame."""
    return WIDTH // 5 + 3 * (index % 20), HEIGHT // 3, HEIGHT // 3


def scene(index, size=(HEIGHT, WIDTH)):
    """Return frame ``index`` of a textured square before a textured background, RGB."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    x, y, side = object_box(index)
    noise = rng.integers(0, 256, (side // 3, side // 3, 3), dtype=np.uint8)
    image[y : y + side, x : x + side] = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return image if size == (HEIGHT, WIDTH) else cv2.resize(image, size[::-1])


def header(stamp, frame_id='camera'):
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = divmod(stamp, 10**9)
    return message


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class Bench:
    """Starts the node and talks to it; a context manager that ends both.

    ``lines`` is what the node has written so far, ``masks`` what it has published on ~/mask,
    ``status`` its last diagnostic status and ``values`` that status's values.
    """

    def __init__(self, environment, parameters=None, arguments=(), *, node='/detect', topic='/camera/image_raw'):
        self.name = node
        self.topic = topic
        self.lines, self.masks, self.statuses, self.timings = [], [], [], []
        self.sent = {}
        self.moment = 0.0
        self.still, self._counted = 0, {}
        self.stamp = 10**12
        self.index = 0
        self._environment = environment
        self._publishers, self._clients, self.subscriptions = {}, {}, {}
        command = [sys.executable, '-m', 'moving_object_detector.programs', 'detect', '--ros-args', *arguments]
        for name, value in {**SMALL, **(parameters or {})}.items():
            command += ['-p', f'{name}:={str(value).lower() if isinstance(value, bool) else value}']
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def __enter__(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'):
                patch.setenv(name, self._environment[name])
            self._context = rclpy.Context()
            rclpy.init(context=self._context, domain_id=int(self._environment['ROS_DOMAIN_ID']))
            self.node = rclpy.create_node('bench', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)
        self.node.create_subscription(Float64, f'{self.name}/debug/processing_time_ms', self.timings.append, 1000)
        return self

    def __exit__(self, *_):
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()

    def _on_diagnostics(self, message):
        self.moment = stamp_of(message) / 1e9
        for status in message.status:
            if status.hardware_id == self.name:
                self.statuses.append(status)
                counted = {name: value for name, value in self.values.items() if name.startswith('frames ')}
                idle = self.values['state'] == 'active' and counted['frames waiting'] == '0'
                self.still = self.still + 1 if idle and counted == self._counted else 0
                self._counted = counted

    # Waiting

    def spin(self, seconds=0.05):
        self._executor.spin_once(timeout_sec=seconds)

    def wait(self, condition, what, limit=PATIENCE, meanwhile=None, still=STILL):
        """Spin until ``condition()`` holds, or the node stands still; ``meanwhile`` is called every 0.3 s."""
        deadline, again = time.monotonic() + limit, 0.0
        self.still = 0
        while not condition():
            if time.monotonic() > deadline or self.still >= still:
                why = f'within {limit} s' if self.still < still else f'and nothing new in {still} statuses'
                pytest.fail(f'no {what} {why}; {self.status}; the node wrote:\n' + '\n'.join(self.lines[-30:]))
            if self.process.poll() is not None and what != 'end':
                pytest.fail(f'the node ended with {self.process.returncode}:\n' + '\n'.join(self.lines[-30:]))
            if meanwhile is not None and time.monotonic() > again:
                meanwhile()
                again = time.monotonic() + 0.3
            self.spin(0.02)

    def wait_line(self, pattern, start=0, meanwhile=None):
        """Wait until the node has written a line with ``pattern``; return it."""
        found = []

        def there():
            found[:] = [line for line in self.lines[start:] if re.search(pattern, line)]
            return found

        self.wait(there, f'line like {pattern!r}', meanwhile=meanwhile)
        return found[0]

    def wait_status(self, condition, what, meanwhile=None, still=STILL):
        """Wait for a status that was sent from now on and for which ``condition(message, values)`` holds."""
        seen = len(self.statuses)

        def there():
            nonlocal seen
            new, seen = self.statuses[seen:], len(self.statuses)
            return any(condition(one.message, {pair.key: pair.value for pair in one.values}) for one in new)

        self.wait(there, f'status with {what}', meanwhile=meanwhile, still=still)

    def wait_counts(self, **counts):
        """Wait until the counts ``frames NAME`` of what was sent are exactly these."""
        wanted = {f'frames {name}': str(number) for name, number in counts.items()}
        self.wait_status(lambda _, values: wanted.items() <= values.items(), f'{counts}', still=SETTLED)

    def wait_state(self, state):
        self.wait_status(lambda _, values: values['state'] == state, state)

    def end(self, number=signal.SIGINT, limit=20):
        """Send a signal and return the seconds until the process has ended."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(limit)
        self._reader.join()
        return time.monotonic() - started

    # What the node says

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else None

    @property
    def values(self):
        return {pair.key: pair.value for pair in self.status.values}

    def counts(self):
        """Return all counts ``frames NAME`` of the next status."""
        self.wait_status(lambda *_: True, 'anything')
        return {name[7:]: int(value) for name, value in self.values.items() if name.startswith('frames ')}

    # Asking

    def ask(self, kind, name, **fields):
        """Call a service; return the future of its answer."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.wait(client.service_is_ready, f'service {name}')
        return client.call_async(kind.Request(**fields))

    def call(self, kind, name, **fields):
        """Call a service; return its answer."""
        future = self.ask(kind, name, **fields)
        self.wait(future.done, f'answer of {name}')
        return future.result()

    def ask_change(self, transition):
        """Ask for a transition by its label or number; return the future of the answer."""
        by_label = isinstance(transition, str)
        wanted = Transition(label=transition) if by_label else Transition(id=transition)
        return self.ask(ChangeState, f'{self.name}/change_state', transition=wanted)

    def change(self, transition):
        """Ask for a transition by its label or number; return whether it succeeded."""
        future = self.ask_change(transition)
        self.wait(future.done, f'answer to {transition}')
        return future.result().success

    def state(self):
        return self.call(GetState, f'{self.name}/get_state').current_state.label

    def set(self, **values):
        """Set parameters, dots written as two underscores; return the results."""
        parameters = [
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg() for name, value in values.items()
        ]
        return self.call(SetParameters, f'{self.name}/set_parameters', parameters=parameters).results

    def get(self, *names):
        """Return parameters' values."""
        values = self.call(GetParameters, f'{self.name}/get_parameters', names=list(names)).values
        return [parameter_value_to_python(value) for value in values]

    # Images

    def subscribe(self, kind, topic, qos=1000):
        """Return the list that a topic's messages go to from now on."""
        if topic in self.subscriptions:
            self.unsubscribe(topic)
        got = []
        self.subscriptions[topic] = self.node.create_subscription(kind, topic, got.append, qos)
        return got

    def unsubscribe(self, topic):
        self.node.destroy_subscription(self.subscriptions.pop(topic))

    def publisher(self, kind=Image, topic=None, qos=None):
        topic = topic or self.topic
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, qos or QoSProfile(depth=600))
            self.wait(self._publishers[topic].get_subscription_count, f'subscription of {topic}')
        return self._publishers[topic]

    def withdraw(self, topic=None):
        """Destroy a publisher."""
        self.node.destroy_publisher(self._publishers.pop(topic or self.topic))

    def watch_masks(self):
        """Subscribe to the masks and send images until they come, then start afresh."""
        self.masks = self.subscribe(Image, f'{self.name}/mask')
        self.wait(lambda: self.masks, 'mask', meanwhile=self.send)
        self.afresh(quiet=1.5)

    def afresh(self, quiet=0.2):
        """Forget all frames, here and in the node; ``quiet`` is longer after images that nobody waited for."""
        assert self.call(Trigger, f'{self.name}/reset').success
        if quiet > 0.2:
            self.wait_idle()
        self.wait(lambda: self._quiet(quiet), 'quiet')
        self.index = 0
        self.stamp += 100 * 10**9
        self.sent.clear()
        self.masks.clear()
        self.timings.clear()

    def wait_idle(self):
        """Wait for a status that was sent from now on in which the node has worked off all that came."""
        self.wait_status(lambda _, values: values['frames waiting'] == '0', 'nothing that waits')

    def _quiet(self, seconds):
        before = len(self.masks), len(self.timings)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.spin()
        return (len(self.masks), len(self.timings)) == before

    def message(self, image=None, encoding='rgb8', stamp=None):
        """Return the next frame's message; ``sent`` remembers it as one that may get a mask."""
        if image is None:
            image = scene(self.index)
        if stamp is None:
            self.stamp += PERIOD
            stamp = self.stamp
        self.index += 1
        self.sent[stamp] = image.shape[:2]
        if encoding == 'jpeg':
            return compressed_message(encode_jpeg(image), header(stamp))
        return image_message(image, encoding, header(stamp))

    def send(self, image=None, encoding='rgb8', stamp=None):
        """Publish the next frame."""
        message = self.message(image, encoding, stamp)
        self.publisher(CompressedImage if encoding == 'jpeg' else Image).publish(message)

    def show(self, count=1, images=None, encoding='rgb8'):
        """Publish the next frames, each after the node has computed the one before."""
        for image in images or [None] * count:
            done = len(self.timings)
            self.send(image, encoding)
            self.wait(lambda done=done: len(self.timings) > done, 'computed frame')

    def bad(self, message):
        """Publish a message that must not get a mask."""
        self.publisher(type(message)).publish(message)

    def check_masks(self):
        """Hold every mask against the image it claims to belong to."""
        stamps = [stamp_of(mask) for mask in self.masks]
        assert len(set(stamps)) == len(stamps)
        for mask in self.masks:
            assert (mask.height, mask.width) == self.sent[stamp_of(mask)]
            assert mask.header.frame_id == 'camera'
            assert (mask.encoding, mask.step, len(mask.data)) == ('mono8', mask.width, mask.width * mask.height)
            assert set(np.unique(mask.data)) <= {0, 255}
        return stamps
