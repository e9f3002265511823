"""What a miss takes: single flight, the records of failures, the compute, and the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from featurestore.errors import FailedSampleError, FailedSamplesError, ValuesError
from featurestore.failures import FailureRecord
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey
from featurestore.shelf import Shelf, check_features
from featurestore.stats import COMPUTED, FAILED, NOT_KEPT, WAITED

if TYPE_CHECKING:
    from featurestore.store import Compute

UNIT = 64  # samples computed and committed together

Hit = tuple[NDArray[Any], str]  # values, "memory" | "disk"
Found = tuple[NDArray[Any], Any, Features | None]  # values, answer, what the compute made


class Miss:
    """One call's samples that are not stored, on their way to being stored."""

    def __init__(
        self,
        shelf: Shelf,
        compute: Compute,
        look: Callable[[str], Hit | None],
        counts: list[int],
        read_only: bool,
    ) -> None:
        self.shelf = shelf
        self.compute = compute
        self.look = look
        self.counts = counts
        self.read_only = read_only
        self.made: dict[str, Found] = {}
        self.failed: dict[str, FailureRecord | Failure] = {}

    def make(self, ids: Sequence[str]) -> dict[str, Found]:
        """Compute and commit; raises FailedSampleError(s) after what could be made is stored."""
        try:
            for start in range(0, len(ids), UNIT):
                unit = ids[start : start + UNIT]
                if self.read_only:
                    self._make_unit(unit)
                    continue
                with self.shelf.flight.hold(unit):
                    self.shelf.reader.refresh(force=True)
                    # Look again under the lock: another process may have stored it while we waited.
                    stored = {id: hit for id in unit if (hit := self.look(id)) is not None}
                    self.counts[WAITED] += len(stored)
                    self.made.update((id, (*hit, None)) for id, hit in stored.items())
                    self._make_unit([id for id in unit if id not in stored])
        finally:
            self.counts[FAILED] += len(ids) - len(self.made)
        if self.failed:
            raise failure_of(self.shelf.key, self.failed, len(ids))
        return self.made

    def _make_unit(self, ids: Sequence[str]) -> None:
        todo = []
        for id in ids:
            record = self.shelf.failures.get(id)
            if record is not None and not record.is_void():
                self.failed[id] = record
            else:
                todo.append(id)
        if not todo:
            return
        ready: dict[str, Features] = {}
        try:
            for id, result in self.compute(self.shelf.key, todo):
                if id not in todo or id in ready or id in self.failed:
                    raise ValuesError(f"compute of {self.shelf.key} answered {id!r}, which was not asked for or twice")
                result = checked(self.shelf.key, id, result)
                if isinstance(result, Features):
                    ready[id] = result
                elif self.read_only or not result.deterministic:
                    self.failed[id] = result
                else:
                    self.failed[id] = self.shelf.failures.add(id, result)
        finally:
            # What is ready is stored, also when the compute breaks off.
            if ready and not self.read_only:
                self.shelf.put(ready)
            self.counts[COMPUTED] += len(ready)
            self.counts[NOT_KEPT] += len(ready) if self.read_only else 0
            self.made.update((id, (item.values.copy(), "computed", item)) for id, item in ready.items())
        for id in todo:
            if id not in ready and id not in self.failed:
                self.failed[id] = Failure("encoding", f"the compute did not answer for {id!r}", deterministic=False)


def checked(key: FeatureKey, id: str, result: Features | Failure) -> Features | Failure:
    """Features as they may be stored, or the failure that they are."""
    if isinstance(result, Failure):
        return result
    try:
        check_features(key, id, result)
    except ValuesError as error:
        # A wrong shape is a bug of the encoder, which mending cures; NaN comes back with the sample.
        return Failure("encoding", str(error), deterministic="NaN" in str(error))
    return result


def failure_of(key: FeatureKey, failed: Mapping[str, FailureRecord | Failure], asked: int) -> Exception:
    """What to raise for samples that cannot be made."""
    id, first = next(iter(failed.items()))
    advice = "`fstore retry` tries again" if isinstance(first, FailureRecord) else "it may work when tried again"
    if asked == 1:
        return FailedSampleError(f"sample {id!r} of {key} cannot be made: {first.message}; {advice}", first)
    return FailedSamplesError(
        f"{len(failed)} of {asked} samples of {key} cannot be made, the others are stored; "
        f"e.g. {id!r}: {first.message}; {advice}",
        failed,
    )
