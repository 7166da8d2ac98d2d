"""Between the threads that receive images and orders and the one that computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 256 * 2**20
"""Images that wait never hold more memory than this, unless a single one does."""

Order = Callable[[], None]
"""Something that the computing thread does between two images."""


@dataclass(frozen=True)
class Letter:
    """One image message and when it came."""

    message: Any
    """sensor_msgs/Image or CompressedImage."""
    arrival: float
    """Seconds of the monotonic clock."""
    stamp: int = 0
    """Nanoseconds of the node's clock."""


class Mailbox:
    """A bounded queue whose oldest letters give way, so that a burst cannot make latency or memory grow.

    Args:
        capacity: Most letters that wait.
        max_bytes: Most bytes of their images together.

    """

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._items: deque[Letter | Order] = deque()
        self._letters = 0
        self._bytes = 0
        self._closed = False
        self._condition = threading.Condition()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def put(self, letter: Letter) -> int:
        """Add a letter; return how many older ones were dropped for it."""
        dropped = 0
        with self._condition:
            if self._closed:
                return 0
            size = len(letter.message.data)
            while self._letters and (self._letters >= self._capacity or self._bytes + size > self._max_bytes):
                self._drop_oldest()
                dropped += 1
            self._items.append(letter)
            self._letters += 1
            self._bytes += size
            self._condition.notify()
        return dropped

    def _drop_oldest(self) -> None:
        for position, item in enumerate(self._items):
            if isinstance(item, Letter):
                del self._items[position]
                self._letters -= 1
                self._bytes -= len(item.message.data)
                return

    def order(self, order: Order, *, discard: bool = False) -> None:
        """Add an order, carried out after the letters before it; ``discard`` throws these away."""
        with self._condition:
            if discard:
                self._items = deque(item for item in self._items if not isinstance(item, Letter))
                self._letters = self._bytes = 0
            self._items.append(order)
            self._condition.notify()

    def close(self) -> None:
        """End the conversation; :meth:`take` returns None from now on."""
        with self._condition:
            self._closed = True
            self._items.clear()
            self._letters = self._bytes = 0
            self._condition.notify()

    def take(self) -> tuple[deque[Letter], Order | None] | None:
        """Wait for something to do.

        Returns:
            All letters up to the next order, and that order; None once closed.

        """
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._items)
            if self._closed:
                return None
            letters: deque[Letter] = deque()
            order: Order | None = None
            while self._items and order is None:
                item = self._items.popleft()
                if isinstance(item, Letter):
                    letters.append(item)
                    self._letters -= 1
                    self._bytes -= len(item.message.data)
                else:
                    order = item
            return letters, order
