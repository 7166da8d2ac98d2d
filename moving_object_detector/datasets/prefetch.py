"""Work ahead in a thread, a few items at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar('Item')

_END = object()


class Prefetch(AbstractContextManager['Prefetch[Item]'], Generic[Item]):
    """Iterate over ``items`` while a thread produces the next ones.

    Use as a context manager: leaving it ends the thread. An error in ``items`` is raised where the
    item would have come.
    """

    def __init__(self, items: Iterable[Item], *, depth: int = 8) -> None:
        """Prepare; the thread starts on entering.

        Args:
            items: What to iterate over, in the thread alone.
            depth: How many items may wait; the bound on memory.

        """
        self._items = items
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._produce, name='prefetch', daemon=True)

    def _offer(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _produce(self) -> None:
        try:
            for item in self._items:
                if not self._offer(item):
                    return
        except Exception as error:  # noqa: BLE001 (handed to the consumer, which raises it)
            self._error = error
        self._offer(_END)

    def __enter__(self) -> Prefetch[Item]:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread; items not consumed are dropped."""
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order, once."""
        while True:
            item = self._queue.get()
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item  # type: ignore[misc]
