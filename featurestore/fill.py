"""Fill: the one loop that makes what is not stored: claim, compute, check once at the border, commit, record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from featurestore.errors import RecipeMismatchError, StoreError, ValuesError
from featurestore.features import Compute, Failure, Features
from featurestore.key import FeatureKey
from featurestore.storage.claims import UNIT, Claim
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.rows import Row, check_finite, check_form

COMMIT_S = 30.0  # what was made waits no longer for the others of its unit


class Fill:
    """Samples on their way from a compute to a feature set, as far as a claim hands them out.

    stored     called with (id, row, ours) once a row is stored; ours: it is what will be read, nobody was first
    failed     called with (id, failure, its record) for a sample that cannot be made
    progress   called with 1 for each sample that the compute answered
    overwrite  ids that are replaced where they are stored with other values
    keep       False where nothing is to be stored or recorded

    What breaks the contract of `Compute` ends it with a ValuesError that names the compute and the id: an answer that
    was not asked for, that comes twice, or that is neither Features nor Failure.  Nothing is stored for that id.  What
    the compute raises is passed on.  Either way what is ready is stored first.  What is never answered is a failure.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        compute: Compute,
        claim: Claim,
        stored: Callable[[str, Row, bool], object],
        failed: Callable[[str, Failure, FailureRecord | None], object],
        *,
        progress: Callable[[int], object] = lambda count: None,
        overwrite: Collection[str] = (),
        keep: bool = True,
    ) -> None:
        self.feature_set = feature_set
        self.compute = compute
        self.claim = claim
        self.stored = stored
        self.failed = failed
        self.progress = progress
        self.overwrite = overwrite
        self.keep = keep
        self.write_s = 0.0
        self._guard = threading.RLock()  # a second thread may commit, see `by_the_clock`
        self._trouble: Exception | None = None  # why it could not
        self._asked: set[str] = set()  # and not answered yet
        self._answered: set[str] = set()
        self._ours: set[str] = set()  # stored by this
        self._ready: dict[str, Row] = {}

    def run(self) -> None:
        """Make all that the claim hands out."""
        with closing(self.claim.units()) as units:
            try:
                for ids in units:
                    self._take(ids)
            finally:
                # What is ready is kept, also when this ends by a signal or a full disk.
                self.commit()

    @contextmanager
    def by_the_clock(self) -> Iterator[None]:
        """Commit every 30 s meanwhile, also while the compute is at work on one sample for long."""
        over = threading.Event()

        def commit() -> None:
            while not over.wait(COMMIT_S):
                try:
                    self.commit()
                except Exception as error:  # noqa: BLE001 - raised where the work is done, with the next sample
                    self._trouble = error
                    return

        clock = threading.Thread(target=commit, name="commit", daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()

    def commit(self) -> None:
        """Store what is ready, and let go of it."""
        with self._guard:
            if not self._ready:
                return
            start = time.perf_counter()
            # Taken off when it is stored and not before: where a signal comes in between, all is put once more.
            ready = dict(self._ready)
            ours: Collection[str] = ready
            if self.keep:
                fresh, replaced = self.feature_set.keep(
                    ready,
                    overwrite=self.overwrite,
                    keep_stored=True,
                    seen=self.claim.seen,
                    made_with=_made_with(self.compute, self.feature_set.key),
                )
                ours = {*fresh, *replaced}
                self._ours.update(ours)
            self._ready.clear()
            self.write_s += time.perf_counter() - start
            for id, row in ready.items():
                self.stored(id, row, id in ours)
                self.claim.release(id)

    def _take(self, ids: Iterable[str]) -> None:
        given: Any = ids if isinstance(ids, list) else self._giving(ids)
        if isinstance(ids, list):  # a compute may look at these more than once
            self._asked.update(ids)
        for answer in self._answers(given):
            if self._trouble is not None:
                raise self._trouble
            with self._guard:
                self._accept(answer)
            self.progress(1)
        for _ in given:
            pass  # what it never took it will not answer either
        self.commit()
        while self._asked:
            id = self._asked.pop()
            self._fail(id, Failure("encoding", f"{self._who} did not answer for {id!r}", deterministic=False))
            self.progress(1)

    def _giving(self, ids: Iterable[str]) -> Iterator[str]:
        for id in ids:
            self._asked.add(id)
            yield id

    def _answers(self, ids: Any) -> Iterator[Any]:
        answers: Any = self.compute(self.feature_set.key, ids)
        if isinstance(answers, Mapping) or not isinstance(answers, Iterable):
            raise ValuesError(f"{self._who} returned a {type(answers).__name__}, not an iterable of (id, features)")
        return iter(answers)

    def _accept(self, answer: Any) -> None:
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise ValuesError(f"{self._who} answered with a {type(answer).__name__}, not with (id, features)")
        id, result = answer
        if not isinstance(id, str) or id not in self._asked:
            raise self._unasked(id)
        self._asked.discard(id)
        self._answered.add(id)
        if not isinstance(result, Features | Failure):
            raise ValuesError(
                f"{self._who} answered {id!r} with a {type(result).__name__}, not with Features or Failure"
            )
        row = self._checked(id, result) if isinstance(result, Features) else result
        if isinstance(row, Failure):
            self._fail(id, row)
        else:
            self._ready[id] = row
            if len(self._ready) >= UNIT:
                self.commit()

    def _unasked(self, id: Any) -> ValuesError:
        """The error; of two answers nobody knows which is right, so that neither stays."""
        if not isinstance(id, str) or id not in self._answered:
            return ValuesError(f"{self._who} answered {id!r}, which was not asked for; it must answer what it is given")
        self._ready.pop(id, None)
        twice, rest = f"{self._who} answered {id!r} twice", "nothing is stored for it"
        try:
            if id in self._ours:
                self.feature_set.delete([id])
            if self.keep:
                self.feature_set.failures.clear([id])
        except StoreError as error:
            rest = f"its first answer is stored and could not be removed ({error})"
        self.failed(id, Failure("encoding", twice, deterministic=False), None)
        return ValuesError(f"{twice}; {rest}")

    def _checked(self, id: str, features: Features) -> Row | Failure:
        """Features as they may be stored beside those that are ready, or the failure that they are."""
        first = next(iter(self._ready.values()), None)
        try:
            check_form(self.feature_set.key, id, features)
            self.feature_set.check_type(id, features, first)
        except (ValuesError, RecipeMismatchError) as error:
            # A bug of the encoder, which mending cures.
            return Failure("encoding", str(error), deterministic=False)
        try:
            check_finite(id, features)
        except ValuesError as error:
            # Comes back with the sample.
            return Failure("encoding", str(error), sources=(features.provenance or {}).get("sources", ()))
        try:
            return Row.of(id, features)
        except ValuesError as error:
            return Failure("encoding", str(error), deterministic=False)

    def _fail(self, id: str, failure: Failure) -> None:
        record = self.feature_set.fail(id, failure) if self.keep and failure.deterministic else None
        self.failed(id, failure, record)
        self.claim.release(id)

    @property
    def _who(self) -> str:
        return f"compute {type(self.compute).__name__} of {self.feature_set.key}"


def recorded(feature_set: FeatureSet, compute: Compute | None, ids: Iterable[str]) -> dict[str, FailureRecord]:
    """The records of those that failed before and whose sources are the same, and did not change since."""
    outdated = getattr(compute, "outdated", None)
    found = {id: record for id in ids if (record := feature_set.failures.get(id)) is not None and not record.is_void()}
    if outdated is None:
        return found
    return {id: record for id, record in found.items() if not outdated(feature_set.key, record)}


def _made_with(compute: Compute, key: FeatureKey) -> Mapping[str, Any]:
    """What a compute says about how it makes features besides the recipe, where it says anything."""
    made_with = getattr(compute, "made_with", None)
    return made_with(key) if made_with is not None else {}
