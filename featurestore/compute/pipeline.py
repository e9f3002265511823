"""Pipeline: samples on their way from media to an encoder's input, several at a time.

Each sample is a generator (see `preparation`) whose jobs run on the decode workers; the generators
themselves run here.  A bounded number is on the way, however many there are.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from featurestore.compute.preparation import Job, Preparation, Prepared, expected_bytes
from featurestore.errors import FeatureStoreError, SampleError
from featurestore.features import Failure

if TYPE_CHECKING:
    from featurestore.media import DecodePool


class Pipeline:
    """Preparations in flight.

    begin    the preparation of a sample, or why it has none
    pool     the decode workers, started when the first job needs them
    room     samples that may be on the way at once
    most     bytes of pixels that may be on the way or wait here at once; one piece may always be, whatever its size
    indexed  {path: VideoIndex} of videos that were scanned before
    decode_s seconds spent by the workers so far
    """

    def __init__(
        self,
        begin: Callable[[str], Preparation | Failure],
        pool: Callable[[], DecodePool],
        room: int,
        indexed: MutableMapping[Any, Any],
        most: int,
    ) -> None:
        self.begin = begin
        self.pool = pool
        self.room = room
        self.indexed = indexed
        self.most = most
        self.decode_s = 0.0
        self._flying: dict[Future[Any], tuple[str, Preparation, int]] = {}
        self._waiting: deque[tuple[str, Preparation, Job]] = deque()  # for room
        self._ready: deque[tuple[str, Prepared | Failure, int]] = deque()
        self._bytes = 0  # of what is on the way or ready; the last of the three that these hold

    def run(self, ids: Iterator[str]) -> Iterator[tuple[str, Prepared | Failure]]:
        """Whatever is ready, the pieces of a sample in their order; before each the workers are given what has room."""
        try:
            more = True
            while more or self._flying or self._waiting or self._ready:
                self._submit()
                while more and not self._waiting and len(self._flying) + len(self._ready) < self.room:
                    id = next(ids, None)
                    if id is None:
                        more = False
                    else:
                        self._begin(id)
                # While answers wait the encoder is the slower side: only look what came in, do not wait.
                self._collect(wait_s=0 if self._ready else None)
                if self._ready:
                    id, outcome, size = self._ready.popleft()
                    yield id, outcome
                    del outcome
                    self._bytes -= size  # whoever took it has come back for the next
        finally:
            for future in self._flying:
                future.cancel()

    def _begin(self, id: str) -> None:
        preparation = self.begin(id)
        if isinstance(preparation, Failure):
            self._ready.append((id, preparation, 0))
        else:
            self._advance(id, preparation, None, None, 0)

    def _advance(self, id: str, preparation: Preparation, result: Any, error: BaseException | None, size: int) -> None:
        """Go on with what a job gave, which is so many bytes."""
        try:
            step = preparation.throw(error) if error is not None else preparation.send(result)
            if isinstance(step, Prepared):
                self._ready.append((id, step, size))
                size = 0
                step = next(preparation)
            if len(step) == 2 and step[1] in self.indexed:
                step = preparation.send(self.indexed.pop(step[1]))
        except StopIteration as stop:
            self._ready.append((id, stop.value, size))
        except SampleError as failed:
            self._ready.append((id, Failure.of(failed, _sources_of(failed)), size))
        except FeatureStoreError:
            raise  # no workers, no package: it concerns every sample
        except Exception as bug:  # noqa: BLE001 - a sampler or decoder that breaks on one sample must not cost the others
            message = f"sample {id!r}: {type(bug).__name__}: {bug}"
            self._ready.append((id, Failure("unexpected", message, deterministic=False), size))
        else:
            self._waiting.append((id, preparation, step))
            self._submit()

    def _submit(self) -> None:
        """Give the workers what waits and has room."""
        while self._waiting:
            id, preparation, job = self._waiting[0]
            size = expected_bytes(job)
            if size and self._bytes and self._bytes + size > self.most:
                return
            self._waiting.popleft()
            self._bytes += size
            self._flying[self.pool().submit(timed, *job)] = (id, preparation, size)

    def _collect(self, wait_s: float | None) -> None:
        if not self._flying:
            return
        done, _ = wait(self._flying, timeout=wait_s, return_when=FIRST_COMPLETED)
        for future in done:
            id, preparation, size = self._flying.pop(future)
            error = future.exception()
            if error is not None:
                self._advance(id, preparation, None, error, size)
                continue
            seconds, result = future.result()
            self.decode_s += seconds
            self._advance(id, preparation, result, None, size)


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Runs in a worker: (seconds, result)."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def _sources_of(error: SampleError) -> tuple[dict[str, Any], ...]:
    """The file that an error names, so that its record is void once it changes or the sample names another."""
    path = getattr(error, "path", None)
    if path is None:
        return ()
    try:
        status = os.stat(path)
    except OSError:
        return ()
    column = {} if error.column is None else {"column": error.column}
    return ({"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, **column},)
