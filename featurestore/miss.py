"""What a miss takes: single flight, the records of failures, the compute, and the commit."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featurestore.errors import (
    CorruptSegmentError,
    FailedSampleError,
    FailedSamplesError,
    MissingFeatureError,
    ReadOnlyError,
    RecipeMismatchError,
    ValuesError,
)
from featurestore.failures import FailureRecord
from featurestore.features import Compute, Failure, Features
from featurestore.key import FeatureKey
from featurestore.levels import require_writable
from featurestore.shelf import Shelf, check_finite, check_form, reading
from featurestore.stats import COMPUTED, FAILED, NOT_KEPT, WAITED

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

    def make(self, ids: Sequence[str], one: bool) -> dict[str, Found]:
        """Compute and commit; raises FailedSample(s)Error after what could be made is stored."""
        try:
            self._require_writable(ids)
            for start in range(0, len(ids), UNIT):
                unit = ids[start : start + UNIT]
                if self.read_only:
                    self._make_unit(unit)
                    continue
                with self.shelf.flight.hold(unit):
                    with reading(self.shelf.key):
                        self.shelf.reader.refresh(force=True)
                    # Look again under the lock: another process may have stored it while we waited.
                    stored = {id: hit for id in unit if (hit := self.look(id)) is not None}
                    self.counts[WAITED] += len(stored)
                    self.made.update((id, (*hit, None)) for id, hit in stored.items())
                    self._make_unit([id for id in unit if id not in stored])
        finally:
            self.counts[FAILED] += len(ids) - len(self.made)
        if self.failed:
            raise failure_of(self.shelf, self.failed, len(ids), one)
        return self.made

    def _require_writable(self, ids: Sequence[str]) -> None:
        try:
            if not self.read_only:
                require_writable(self.shelf.place)
        except ReadOnlyError:
            if len(recorded(self.shelf, ids)) < len(ids):  # else nothing would be computed
                raise

    def _make_unit(self, ids: Sequence[str]) -> None:
        records = recorded(self.shelf, ids)
        self.failed.update(records)
        todo = [id for id in ids if id not in records]
        if not todo:
            return
        ready: dict[str, Features] = {}
        asked = set(todo)
        try:
            for id, result in self.compute(self.shelf.key, todo):
                if id not in asked:
                    raise ValuesError(f"compute of {self.shelf.key} answered {id!r}, which was not asked for or twice")
                asked.remove(id)
                outcome = checked(self.shelf, id, result, next(iter(ready.values()), None))
                if isinstance(outcome, Features):
                    ready[id] = outcome
                elif self.read_only or not outcome.deterministic:
                    self.failed[id] = outcome
                else:
                    self.failed[id] = self.shelf.fail(id, outcome)
        finally:
            # What is ready is stored, also when the compute breaks off.
            self._settle(ready)
        for id in asked:
            self.failed[id] = Failure("encoding", f"the compute did not answer for {id!r}", deterministic=False)

    def _settle(self, ready: Mapping[str, Features]) -> None:
        if ready and not self.read_only:
            self.shelf.put(ready, keep_stored=True, made_with=described(self.compute, self.shelf.key))
        for id, item in ready.items():
            # What is stored is what later calls get: another process may have been first, with other last bits.
            with reading(id):
                stored = None if self.read_only else self.shelf.reader.get(id)
            self.made[id] = (item.values.copy() if stored is None else stored, "computed", item)
        self.counts[COMPUTED] += len(ready)
        self.counts[NOT_KEPT] += len(ready) if self.read_only else 0


def described(compute: Compute, key: FeatureKey) -> Mapping[str, Any]:
    """What a compute says about how it makes features besides the recipe, where it says anything."""
    made_with = getattr(compute, "made_with", None)
    return made_with(key) if made_with is not None else {}


def recorded(shelf: Shelf, ids: Sequence[str]) -> dict[str, FailureRecord]:
    """The records of those that failed before and whose sources did not change since."""
    found = {id: record for id in ids if (record := shelf.failures.get(id)) is not None}
    return {id: record for id, record in found.items() if not record.is_void()}


def checked(shelf: Shelf, id: str, result: object, first: Features | None) -> Features | Failure:
    """Features as they may be stored beside the `first` of their batch, or the failure that they are."""
    if isinstance(result, Failure):
        return result
    if not isinstance(result, Features):
        raise ValuesError(
            f"compute of {shelf.key} answered {id!r} with a {type(result).__name__}, not with Features or Failure"
        )
    try:
        check_form(shelf.key, id, result)
        shelf.check_type(id, result, first)
    except (ValuesError, RecipeMismatchError) as error:
        # A bug of the encoder, which mending cures.
        return Failure("encoding", str(error), deterministic=False)
    try:
        check_finite(id, result)
    except ValuesError as error:
        # Comes back with the sample.
        return Failure("encoding", str(error), sources=(result.provenance or {}).get("sources", ()))
    return result


def failure_of(shelf: Shelf, failed: Mapping[str, FailureRecord | Failure], asked: int, one: bool) -> Exception:
    """What to raise for samples that cannot be made; `one` where a single one was asked for, not a batch."""
    key = shelf.key
    id, first = next(iter(failed.items()))
    advice = "it may work when tried again"
    if isinstance(first, FailureRecord):
        advice = f"`fstore retry {key} --manifest FILE.csv --store {shlex.quote(str(shelf.place.root))}` tries again"
    if one:
        return FailedSampleError(f"sample {id!r} of {key} cannot be made: {first.message}; {advice}", first)
    return FailedSamplesError(
        f"{len(failed)} of {asked} samples of {key} cannot be made, the others are stored; "
        f"e.g. {id!r}: {first.message}; {advice}",
        failed,
    )


def absence(
    root: Path, key: FeatureKey | str, ids: Sequence[str], shelf: Shelf | None, meant: FeatureKey | None = None
) -> Exception:
    """What to raise for samples that are not stored and cannot be computed here; `meant`: a stored key that is near."""
    count = f"sample {ids[0]!r} is" if len(ids) == 1 else f"{len(ids)} samples, e.g. {ids[0]!r}, are"
    where = f"{key}@{shelf.fingerprint[:8]}" if shelf is not None else str(key)
    # A copy: another thread may find them repaired meanwhile.
    problems = dict(shelf.reader.problems) if shelf is not None else {}
    if shelf is not None and problems:
        name, why = next(iter(problems.items()))
        number = len(problems)
        return CorruptSegmentError(
            f"{count} not to be had under {where} in {root}: {number} segment{'s are' if number > 1 else ' is'} "
            f"damaged, e.g. {name}: {why}; run `fstore verify {key} --store {shlex.quote(str(root))} --full --repair`"
        )
    hint = f" (nothing is; did you mean {meant}?)" if meant is not None else ""
    return MissingFeatureError(
        f"{count} not stored under {where} in {root}{hint}, and this store has no compute for it; run "
        f"`fstore extract {key} --manifest FILE.csv --store {shlex.quote(str(root))}`"
    )
