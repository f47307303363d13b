"""Items made by a thread while others are used, with the seconds either side waited for the other."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from curation.closing import Closing

_T = TypeVar("_T")
_LOOKS_S = 0.1  # how long the end of either side may go unseen


class Ahead(Closing, Generic[_T]):
    """The items of an iterator, up to two of them made ahead: one waits here, one in the thread.

    Args:
        closed: set when the block ends, so that an iterator that waits for others may look at it.
    """

    def __init__(self, items: Iterator[_T], closed: threading.Event) -> None:
        self._items, self._closed = items, closed
        self._ready: queue.Queue[tuple[bool, _T | BaseException | None]] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._make, daemon=True)
        self.user_wait_s = 0.0  # the user's, for items
        self.maker_wait_s = 0.0  # the thread's, for room

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def leave(self, error: BaseException | None) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[_T]:
        while True:
            begun_s = time.monotonic()
            more, item = self._ready.get()
            self.user_wait_s += time.monotonic() - begun_s
            if isinstance(item, BaseException):
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]  # None is the end alone

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put((True, item)):
                    return
            self._put((False, None))
        except BaseException as error:  # the user's thread is where it belongs
            self._put((False, error))
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, entry: tuple[bool, _T | BaseException | None]) -> bool:
        begun_s = time.monotonic()
        while not self._closed.is_set():
            try:
                self._ready.put(entry, timeout=_LOOKS_S)
            except queue.Full:
                continue
            self.maker_wait_s += time.monotonic() - begun_s
            return True
        return False
