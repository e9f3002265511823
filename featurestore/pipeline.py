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

from featurestore.errors import FeatureStoreError, SampleError
from featurestore.features import Failure
from featurestore.preparation import Preparation, Prepared

if TYPE_CHECKING:
    from featurestore.media import DecodePool


class Pipeline:
    """Preparations in flight.

    begin    the preparation of a sample, or why it has none
    pool     the decode workers, started when the first job needs them
    room     samples that may be on the way at once
    indexed  {path: VideoIndex} of videos that were scanned before
    decode_s seconds spent by the workers so far
    """

    def __init__(
        self,
        begin: Callable[[str], Preparation | Failure],
        pool: Callable[[], DecodePool],
        room: int,
        indexed: MutableMapping[Any, Any],
    ) -> None:
        self.begin = begin
        self.pool = pool
        self.room = room
        self.indexed = indexed
        self.decode_s = 0.0
        self._flying: dict[Future[Any], tuple[str, Preparation]] = {}
        self._ready: deque[tuple[str, Prepared | Failure]] = deque()

    def run(self, ids: Iterator[str]) -> Iterator[tuple[str, Prepared | Failure]]:
        """Whatever is ready; before each answer the workers are given what there is room for."""
        try:
            more = True
            while more or self._flying or self._ready:
                while more and len(self._flying) + len(self._ready) < self.room:
                    id = next(ids, None)
                    if id is None:
                        more = False
                    else:
                        self._begin(id)
                # While answers wait the encoder is the slower side: only look what came in, do not wait.
                self._collect(wait_s=0 if self._ready else None)
                if self._ready:
                    yield self._ready.popleft()
        finally:
            for future in self._flying:
                future.cancel()

    def _begin(self, id: str) -> None:
        preparation = self.begin(id)
        if isinstance(preparation, Failure):
            self._ready.append((id, preparation))
        else:
            self._advance(id, preparation, None, None)

    def _advance(self, id: str, preparation: Preparation, result: Any, error: BaseException | None) -> None:
        try:
            job = preparation.throw(error) if error is not None else preparation.send(result)
            if len(job) == 2 and job[1] in self.indexed:
                job = preparation.send(self.indexed.pop(job[1]))
        except StopIteration as stop:
            self._ready.append((id, stop.value))
        except SampleError as failed:
            self._ready.append((id, Failure.of(failed, _sources_of(failed))))
        except FeatureStoreError:
            raise  # no workers, no package: it concerns every sample
        except Exception as bug:  # noqa: BLE001 - a sampler or decoder that breaks on one sample must not cost the others
            message = f"sample {id!r}: {type(bug).__name__}: {bug}"
            self._ready.append((id, Failure("unexpected", message, deterministic=False)))
        else:
            self._flying[self.pool().submit(timed, *job)] = (id, preparation)

    def _collect(self, wait_s: float | None) -> None:
        if not self._flying:
            return
        done, _ = wait(self._flying, timeout=wait_s, return_when=FIRST_COMPLETED)
        for future in done:
            id, preparation = self._flying.pop(future)
            error = future.exception()
            if error is not None:
                self._advance(id, preparation, None, error)
                continue
            seconds, result = future.result()
            self.decode_s += seconds
            self._advance(id, preparation, result, None)


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Runs in a worker: (seconds, result)."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def _sources_of(error: SampleError) -> tuple[dict[str, Any], ...]:
    """Size and mtime of the file that an error names, so that its record is void once the file changes."""
    path = getattr(error, "path", None)
    if path is None:
        return ()
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return ({"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns},)
