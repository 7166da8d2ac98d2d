"""The view: a real ``view`` beside a real ``detect``, a browser's requests."""

from __future__ import annotations

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import HEIGHT, LOSSLESS, WIDTH, object_box
from std_msgs.msg import Header

from moving_object_detector.nodes import commands
from moving_object_detector.nodes.messages import image_message
from moving_object_detector.nodes.view import Feeds, picture_of

NOBODY = 'nobody subscribes'


@pytest.fixture(scope='module')
def detect(start_detect):
    return start_detect({**LOSSLESS, 'input.timeout': 30.0})


@pytest.fixture
def view(ros_environment, detect):
    """Starts ``view`` with arguments; returns the process and what a line of its log holds."""
    processes = []

    def begin(pattern, *arguments):
        process = subprocess.Popen(
            [sys.executable, '-m', 'moving_object_detector.programs', 'view', '--port', '0', *map(str, arguments)],
            env=ros_environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        lines = []
        found = []

        def read():
            for line in process.stderr:
                lines.append(line)
                found.extend(re.findall(pattern, line))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        detect.wait(lambda: found or process.poll() is not None, pattern)
        assert found, ''.join(lines)
        return process, found[0]

    yield begin
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


class Browser:
    """What a page's EventSource does: events by name, the newest of each."""

    def __init__(self, port, show=''):
        self.connection = http.client.HTTPConnection('localhost', port, timeout=60)
        self.connection.request('GET', f'/events?show={show}')
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers['Content-Type'].startswith('text/event-stream')
        self.events = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        name = ''
        try:
            for line in iter(self.answer.readline, b''):
                key, _, value = line.decode().rstrip('\n').partition(': ')
                if key == 'event':
                    name = value
                elif key == 'data':
                    self.events[name] = value
        except (OSError, ValueError):
            return

    def picture(self, name):
        return cv2.imdecode(np.frombuffer(base64.b64decode(self.events[name]), np.uint8), cv2.IMREAD_COLOR)

    def close(self):
        self.connection.sock and self.connection.sock.close()
        self.answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def get(port, path='/', host=None):
    connection = http.client.HTTPConnection('localhost', port, timeout=30)
    connection.request('GET', path, headers={'Host': host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def look_at(detect, port):
    """Open a page, hold what it gets against the scene, close it and wait until nothing is computed."""
    browser = Browser(port, 'overlay,mask')
    detect.wait(lambda: {'overlay', 'mask'} <= set(browser.events), 'pictures', meanwhile=detect.send)
    overlay, mask = browser.picture('overlay'), browser.picture('mask')
    assert overlay.shape == mask.shape == (HEIGHT, WIDTH, 3)
    _, y, side = object_box(0)
    assert mask[y + 5 : y + side - 5].max() > 200
    detect.wait(lambda: 'detecting' in browser.events.get('diagnostics', ''), 'the sentence', meanwhile=detect.send)
    status = json.loads(browser.events['diagnostics'])
    assert (status['node'], status['message'][:9]) == ('/detect', 'detecting')
    assert 'torch' in status['values']['engine']
    detect.wait(lambda: float(browser.events.get('pipeline_latency_ms', 0)) > 0, 'latency', meanwhile=detect.send)
    # What the page does not show has no subscriber, so the detector computes none of it.
    assert detect.node.count_subscribers('/detect/overlay') == 1
    assert detect.node.count_subscribers('/detect/flow') == 0
    browser.close()
    detect.wait_status(lambda message, _: NOBODY in message, NOBODY, detect.send)


def test_what_is_looked_at_is_shown_and_nothing_else_is_computed(view, detect):
    _, port = view(r'http://localhost:(\d+)/')
    status, headers, page = get(int(port))
    assert status == 200
    assert "default-src 'none'" in headers['Content-Security-Policy']
    # Whatever is missing where there is no network would be missing from the page.
    assert not re.findall(r'(?:https?:)?//[a-z]', page)
    detect.wait_status(lambda message, _: NOBODY in message, NOBODY, detect.send)
    look_at(detect, int(port))
    look_at(detect, int(port))  # closed and opened again
    assert detect.process.poll() is None


def test_two_pages_do_not_disturb_each_other(view, detect):
    _, port = view(r'http://localhost:(\d+)/')
    first, second = Browser(port, 'mask'), Browser(port, 'mask,flow')
    detect.wait(lambda: 'mask' in first.events and 'flow' in second.events, 'pictures', meanwhile=detect.send)
    first.close()
    second.events.clear()
    detect.wait(lambda: {'mask', 'flow'} <= set(second.events), 'more pictures', meanwhile=detect.send)
    second.close()


def test_a_page_from_elsewhere_cannot_read_the_camera(view, detect):
    _, port = view(r'http://localhost:(\d+)/')
    assert get(int(port), '/events', host='elsewhere.example')[0] == 403
    assert get(int(port), '/etc/passwd')[0] == 404
    assert get(int(port), '/', host=f'127.0.0.1:{port}')[0] == 200


def test_what_cannot_be_shown_is_left_out(view, detect):
    _, port = view(r'http://localhost:(\d+)/', '--detector', 'other')
    browser = Browser(port, 'flow,mask')
    broken = image_message(np.zeros((4, 6, 2), np.float32), '32FC2', Header())
    broken.height = 5
    good = image_message(np.full((4, 6), 255, np.uint8), 'mono8', Header())

    def send():
        detect.publisher(topic='/other/flow').publish(broken)
        detect.publisher(topic='/other/mask').publish(good)

    detect.wait(lambda: 'mask' in browser.events, 'the mask', meanwhile=send)
    browser.events.clear()
    detect.wait(lambda: 'mask' in browser.events, 'another mask', meanwhile=send)
    assert 'flow' not in browser.events
    assert (browser.picture('mask') > 250).all()
    browser.close()


def topics_in(value):
    """Every text in a layout that begins like a topic, without the field of a plot."""
    if isinstance(value, dict | list):
        return {topic for inner in (value.values() if isinstance(value, dict) else value) for topic in topics_in(inner)}
    return {value.removesuffix('.data')} if isinstance(value, str) and value.startswith('/') else set()


def test_layouts_name_what_there_is(listener):
    config = Path(__file__).resolve().parents[2] / 'config'
    layout = json.loads((config / 'foxglove_layout.json').read_text())
    feeds = Feeds(listener[0], 'detect')
    assert topics_in(layout['configById']) == {feed.topic for feed in feeds.by_name.values()}
    # Every panel has a place, and every place a panel.
    assert set(re.findall(r'"(\w+![a-z]+)"', json.dumps(layout['layout']))) == set(layout['configById'])
    rviz = yaml.safe_load((config / 'detect.rviz').read_text())
    shown = {display['Topic']['Value'] for display in rviz['Visualization Manager']['Displays']}
    assert shown == {'/detect/overlay', '/detect/mask', '/detect/probability'}


def test_a_port_in_use_is_told(ros_environment, capfd):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert commands.view(['--port', str(port)]) == 2
    message = capfd.readouterr().err
    assert '--port' in message
    assert 'Traceback' not in message


def test_pictures_of_results():
    shares = np.array([[0, 1]], np.float32)
    dark, bright = picture_of('probability', image_message(shares, '32FC1', Header()))[0].astype(int)
    assert dark.max() < 10
    assert bright[:2].min() > 200 > bright[2]
    right = np.full((2, 2, 2), (3, 0), np.float32)
    assert (picture_of('flow', image_message(right, '32FC2', Header())) == (255, 0, 0)).all()
    mask = np.array([[0, 255]], np.uint8)
    assert picture_of('mask', image_message(mask, 'mono8', Header())).tolist() == [[[0] * 3, [255] * 3]]
