"""Between the thread that receives images and the one that computes."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Order(Enum):
    """What the computing thread is told to do besides images."""

    FLUSH = 'finish the frames that wait'
    RESET = 'forget all frames'


@dataclass(frozen=True)
class Letter:
    """One image message and when it came."""

    message: Any
    """sensor_msgs/Image or CompressedImage."""
    arrival: float
    """Seconds of the monotonic clock."""


class Mailbox:
    """A bounded queue whose oldest letter gives way, so that a burst cannot make latency or memory grow."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._letters: deque[Letter] = deque()
        self._orders: deque[Order] = deque()
        self._closed = False
        self._condition = threading.Condition()

    def put(self, letter: Letter) -> bool:
        """Add a letter; return False if the oldest one was dropped for it."""
        with self._condition:
            full = len(self._letters) >= self._capacity
            if full:
                self._letters.popleft()
            self._letters.append(letter)
            self._condition.notify()
            return not full

    def order(self, order: Order) -> None:
        """Add an order, carried out before the letters that come after it; a reset discards those before it."""
        with self._condition:
            if order is Order.RESET:
                self._letters.clear()
            self._orders.append(order)
            self._condition.notify()

    def close(self) -> None:
        """End the conversation; :meth:`take` returns None from now on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def take(self) -> tuple[list[Order], list[Letter]] | None:
        """Wait for something to do; return all of it, or None once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._letters or self._orders)
            if self._closed:
                return None
            orders, letters = list(self._orders), list(self._letters)
            self._orders.clear()
            self._letters.clear()
            return orders, letters
