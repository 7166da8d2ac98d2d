"""Between the threads that receive images and commands and the one that computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 256 * 2**20
"""Images that wait never hold more memory than this, unless a single one does."""

Command = Callable[[], None]
"""Something that the computing thread does between two images."""


@dataclass(frozen=True)
class Arrival:
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
        self._images = 0
        self._taken = 0
        self._bytes = 0
        self._closed = False
        self._condition = threading.Condition()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many images wait or were taken out last, whose taker has not come back."""
        return self._images + self._taken

    def put(self, image: Arrival) -> int:
        """Add an image; return how many older ones were dropped for it."""
        dropped = 0
        with self._condition:
            if self._closed:
                return 0
            size = len(image.message.data)
            while self._images and (self._images >= self._capacity or self._bytes + size > self._max_bytes):
                self._drop_oldest()
                dropped += 1
            self._items.append(image)
            self._images += 1
            self._bytes += size
            self._condition.notify()
        return dropped

    def _drop_oldest(self) -> None:
        for position, item in enumerate(self._items):
            if isinstance(item, Arrival):
                del self._items[position]
                self._images -= 1
                self._bytes -= len(item.message.data)
                return

    def command(self, command: Command, *, discard: bool = False) -> None:
        """Add a command, carried out after the images before it; ``discard`` throws these away."""
        with self._condition:
            if discard:
                self._items = deque(item for item in self._items if not isinstance(item, Arrival))
                self._images = self._bytes = 0
            self._items.append(command)
            self._condition.notify()

    def close(self) -> None:
        """End it; :meth:`take` returns None from now on."""
        with self._condition:
            self._closed = True
            self._items.clear()
            self._images = self._bytes = 0
            self._condition.notify()

    def take(self) -> tuple[deque[Arrival], Command | None] | None:
        """Wait; return all images up to the next command, and that command, or None once closed."""
        with self._condition:
            self._taken = 0
            self._condition.wait_for(lambda: self._closed or self._items)
            if self._closed:
                return None
            images: deque[Arrival] = deque()
            command: Command | None = None
            while self._items and command is None:
                item = self._items.popleft()
                if isinstance(item, Arrival):
                    images.append(item)
                    self._images -= 1
                    self._bytes -= len(item.message.data)
                else:
                    command = item
            self._taken = len(images)
            return images, command
