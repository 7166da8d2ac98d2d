"""Between the threads that receive images and commands and the one that computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_BYTES = 256 * 2**20
"""Images that wait never hold more memory than this, unless a single one does."""

Command = Callable[[], None]
"""Something that the computing thread does between two images."""


class Arrival(NamedTuple):
    """One image message and when it came."""

    message: Any
    """sensor_msgs/Image or CompressedImage."""
    moment: float
    """Seconds of the monotonic clock."""
    stamp: int = 0
    """Nanoseconds of the node's clock."""


class Mailbox:
    """A bounded queue whose oldest images give way, so that a burst cannot make latency or memory grow."""

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._items: deque[Arrival | Command] = deque()
        self._taken = 0
        self._condition = threading.Condition()
        self.closed = False

    @property
    def waiting(self) -> int:
        """How many images wait or were taken out last, whose taker has not come back."""
        with self._condition:
            return len(self._images()) + self._taken

    def _images(self) -> list[Arrival]:
        return [item for item in self._items if isinstance(item, Arrival)]

    def put(self, image: Arrival) -> int:
        """Add an image; return how many older ones were dropped for it."""
        with self._condition:
            if self.closed:
                return 0
            self._items.append(image)
            room, dropped = self._max_bytes, set()
            for place, one in enumerate(reversed(self._images())):
                room -= len(one.message.data)
                if place and (place >= self._capacity or room < 0):
                    dropped.add(id(one))
            if dropped:
                self._items = deque(item for item in self._items if id(item) not in dropped)
            self._condition.notify()
        return len(dropped)

    def command(self, command: Command, *, discard: bool = False) -> None:
        """Add a command, carried out after the images before it; ``discard`` throws these away."""
        with self._condition:
            if discard:
                self._items = deque(item for item in self._items if not isinstance(item, Arrival))
            self._items.append(command)
            self._condition.notify()

    def close(self) -> None:
        """End it; :meth:`take` returns None from now on."""
        with self._condition:
            self.closed = True
            self._items.clear()
            self._condition.notify()

    def take(self) -> tuple[deque[Arrival], Command | None] | None:
        """Wait; return all images up to the next command, and that command, or None once closed."""
        with self._condition:
            self._taken = 0
            self._condition.wait_for(lambda: self.closed or self._items)
            if self.closed:
                return None
            images: deque[Arrival] = deque()
            while self._items:
                item = self._items.popleft()
                if not isinstance(item, Arrival):
                    return images, item
                images.append(item)
                self._taken = len(images)
            return images, None
