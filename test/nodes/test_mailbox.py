"""The queue between receiving and computing."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from moving_object_detector.nodes.pipeline import Arrival, Mailbox


def image(name, size=1):
    return Arrival(SimpleNamespace(name=name, data=bytes(size)), 0.0)


def names(images):
    return [one.message.name for one in images]


def test_all_that_waits_comes_at_once_in_its_order():
    mailbox = Mailbox(5)
    for name in 'abc':
        assert mailbox.put(image(name)) == 0
    images, command = mailbox.take()
    assert names(images) == ['a', 'b', 'c']
    assert command is None


def test_the_oldest_gives_way():
    mailbox = Mailbox(3)
    assert [mailbox.put(image(name)) for name in 'abcde'] == [0, 0, 0, 1, 1]
    assert names(mailbox.take()[0]) == ['c', 'd', 'e']
    # What was taken no longer counts.
    assert [mailbox.put(image(name)) for name in 'fgh'] == [0, 0, 0]


def test_bytes_are_bounded_too():
    mailbox = Mailbox(100, max_bytes=10)
    assert [mailbox.put(image(name, 4)) for name in 'ab'] == [0, 0]
    assert mailbox.put(image('c', 3)) == 1  # 4 + 4 + 3 is 11: a goes
    assert mailbox.put(image('d', 3)) == 0  # 4 + 3 + 3 is 10
    assert mailbox.put(image('e', 7)) == 2  # b and c go, 3 + 7 is 10
    assert names(mailbox.take()[0]) == ['d', 'e']
    assert mailbox.put(image('huge', 50)) == 0  # one always fits
    assert mailbox.put(image('f', 1)) == 1
    assert names(mailbox.take()[0]) == ['f']


def test_a_command_comes_after_the_images_before_it_and_before_those_after_it():
    mailbox = Mailbox(5)
    first, second = (lambda: None), (lambda: None)
    mailbox.put(image('a'))
    mailbox.command(first)
    mailbox.put(image('b'))
    mailbox.put(image('c'))
    mailbox.command(second)
    images, command = mailbox.take()
    assert (names(images), command) == (['a'], first)
    images, command = mailbox.take()
    assert (names(images), command) == (['b', 'c'], second)


def test_a_command_that_discards_leaves_the_other_commands():
    mailbox = Mailbox(2, max_bytes=10)
    flush, reset = (lambda: None), (lambda: None)
    mailbox.put(image('a', 9))
    mailbox.command(flush)
    mailbox.put(image('b'))
    mailbox.command(reset, discard=True)
    assert mailbox.put(image('c', 9)) == 0  # what was thrown away no longer counts
    images, command = mailbox.take()
    assert (names(images), command) == ([], flush)
    images, command = mailbox.take()
    assert (names(images), command) == ([], reset)
    assert names(mailbox.take()[0]) == ['c']


def test_dropping_passes_over_commands():
    mailbox = Mailbox(1)
    command = lambda: None  # noqa: E731
    mailbox.command(command)
    mailbox.put(image('a'))
    assert mailbox.put(image('b')) == 1
    assert mailbox.take()[1] is command
    assert names(mailbox.take()[0]) == ['b']


def test_closing_wakes_who_waits_and_lets_nothing_in():
    mailbox = Mailbox(3)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    time.sleep(0.05)
    assert not taken
    mailbox.close()
    thread.join(10)
    assert taken == [None]
    assert mailbox.closed
    assert mailbox.put(image('late')) == 0
    assert mailbox.take() is None


def test_nothing_is_lost_between_threads():
    mailbox = Mailbox(10_000)
    taken = []

    def take():
        while (work := mailbox.take()) is not None:
            taken.extend(names(work[0]))

    reader = threading.Thread(target=take)
    reader.start()
    writers = [
        threading.Thread(target=lambda first=first: [mailbox.put(image((first, k))) for k in range(500)])
        for first in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    deadline = time.monotonic() + 30
    while len(taken) < 1500 and time.monotonic() < deadline:
        time.sleep(0.01)
    mailbox.close()
    reader.join(10)
    assert len(taken) == 1500
    for first in range(3):
        assert [k for writer, k in taken if writer == first] == list(range(500))
