"""Work done ahead: the next batches are prepared in a thread while the model generates this one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_OVER = object()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items in order, made by another thread, at most `depth` of them waiting.

    What making an item raises is raised here, in its turn.  When the consumer stops, the thread does after the item
    that it is at.  Decoding itself runs in processes; this thread waits for them and runs encoders, both outside the
    interpreter's lock.
    """
    queue: Queue[object] = Queue(depth)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return queue.put(item, timeout=0.05)
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_OVER)
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            put(_Raised(error))

    thread = threading.Thread(target=work, name="prepare", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _OVER:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
