"""FeatureStore: has the features of a sample, or makes them, or says why not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.catalog import Catalog, as_key
from featurestore.errors import ReadOnlyError, ValuesError
from featurestore.eviction import DEFAULT
from featurestore.failures import FailureRecord
from featurestore.features import Compute, Features, distinct, gathered
from featurestore.key import FeatureKey, check_id
from featurestore.memory import MemoryTier
from featurestore.miss import Found, Hit, Miss, absence, failure_of, recorded
from featurestore.reader import BadRowError, fits
from featurestore.recipe import Recipe
from featurestore.shelf import Shelf, reading
from featurestore.stats import BYTES_READ, DISK_HITS, MEMORY_HITS, MISSES, Stats


class FeatureStore:
    """A directory of features.  Constructing one touches no disk and costs nothing.

    root           the directory; a relative one is fixed to the working directory of now
    compute        how misses are made; without it a miss is MissingFeatureError
    memory_bytes   budget of the memory tier, 0 for none; memory_policy says which rows leave first
    read_only      nothing is written: misses are computed and returned, counted as `not_kept`
    recipes        {key: fingerprint prefix} to read where a key has several

    What other processes delete or overwrite shows after `refresh()`; what they add shows at the next
    miss.  A store object may be used by several threads, forked, and pickled.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        compute: Compute | None = None,
        *,
        memory_bytes: int = 0,
        memory_policy: str = DEFAULT,
        read_only: bool = False,
        recipes: Mapping[FeatureKey | str, str] | None = None,
    ) -> None:
        self.root = Path(os.path.abspath(root))
        self.compute = compute
        self.read_only = read_only
        self.pins = {str(key): prefix for key, prefix in (recipes or {}).items()}
        self.stats = Stats()
        self._memory_settings = (memory_bytes, memory_policy)
        self._memory = MemoryTier(memory_bytes, memory_policy) if memory_bytes else None
        self._catalog = Catalog(self.root, compute, self.pins)
        self._last: tuple[FeatureKey | str | None, str | None, Shelf | None] = (None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        memory_bytes, memory_policy = self._memory_settings
        settings = {"memory_bytes": memory_bytes, "memory_policy": memory_policy, "read_only": self.read_only}
        return {"root": self.root, "compute": self.compute, "recipes": self.pins, **settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.pop("root"), state.pop("compute"), **state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.root)!r}, read_only={self.read_only})"

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: FeatureKey | str, id: str, *, recipe: str | None = None) -> NDArray[Any]:
        """(n_frames, dim): a fresh, writable array in the stored dtype, the same bits as stored.

        Raises MissingFeatureError (not stored, no way to compute it), FailedSampleError (it cannot be
        made), AmbiguousRecipeError, CorruptSegmentError.
        """
        last_key, last_recipe, shelf = self._last
        if shelf is None or last_key is not key or last_recipe is not recipe:
            shelf = self._catalog.shelf(key, recipe)
            if shelf is None:
                raise self._nothing(key, [id])
            self._last = (key, recipe, shelf)
        if self._memory is None:
            try:
                values: NDArray[Any] | None = shelf.reader.get(id)
            except (OSError, ValueError, AttributeError, TypeError):
                values = None  # read again below, where it is said what is wrong
            if values is not None:
                counts = self.stats.counts()
                counts[DISK_HITS] += 1
                counts[BYTES_READ] += values.nbytes
                return values
        return self._get_all(shelf, [id], one=True)[id][0]

    def get_features(self, key: FeatureKey | str, id: str, *, recipe: str | None = None) -> Features:
        """The values of a sample with its frame indices, timestamps, provenance, recipe, and where they came from."""
        shelf = self._catalog.shelf(key, recipe)
        if shelf is None:
            raise self._nothing(key, [id])
        line = shelf.line(id)  # first: where it is damaged, the sample is a miss
        values, answer, made = self._get_all(shelf, [id], one=True)[id]
        line = line or shelf.line(id)
        if line is None:
            if made is None:
                raise absence(self.root, key, [id], shelf)  # deleted meanwhile
            return Features(values, made.frame_indices, made.timestamps_s, made.provenance, shelf.recipe, answer)
        frames, seconds = line.get("frame_indices"), line.get("timestamps_s")
        return Features(
            values,
            None if frames is None else np.array(frames, np.int64),
            None if seconds is None else np.array(seconds, np.float64),
            line.get("provenance"),
            shelf.recipe,
            answer,
        )

    def get_many(
        self, key: FeatureKey | str, ids: Sequence[str], out: NDArray[Any] | None = None, *, recipe: str | None = None
    ) -> NDArray[Any] | list[NDArray[Any]]:
        """(N, n_frames, dim) in the order of the request, duplicates allowed; a list of N arrays under an `all` key.

        out   a C-contiguous array of that shape and the stored dtype, written and returned
        Raises as `get`; FailedSamplesError after everything that could be made was stored.
        """
        if out is not None and str(key).endswith("/all"):
            raise ValuesError(f"{key} has rows of several lengths: get_many returns a list and takes no `out`")
        ids = list(ids)
        shelf = self._catalog.shelf(key, recipe)
        if shelf is None:
            if not ids:
                return out if out is not None else [] if str(key).endswith("/all") else np.empty((0, 0, 0), np.float32)
            raise self._nothing(key, ids)
        reader = shelf.reader
        places = shelf.places(ids)
        if self._memory is None and None not in places and ids:
            result: NDArray[Any] | list[NDArray[Any]] | None = self._into(shelf, places, out)
            if result is not None:
                counts = self.stats.counts()
                counts[DISK_HITS] += len(set(ids))
                counts[BYTES_READ] += sum(segment.payload for segment, _ in places)
                return result
        found = self._get_all(shelf, ids)
        if reader.key.endswith("/all"):
            return [found[id][0].copy() for id in ids]
        if not ids:
            return reader.empty(0) if out is None else out
        first = found[ids[0]][0]
        batch = _checked_out(out, (len(ids), *first.shape), first.dtype)
        for slot, id in enumerate(ids):
            batch[slot] = found[id][0]
        return batch

    def _into(self, shelf: Shelf, places: Sequence[Any], out: NDArray[Any] | None) -> Any:
        """The batch read of the hit path; None where something was damaged or removed meanwhile."""
        reader = shelf.reader
        if out is not None:
            segment = places[0][0]
            _checked_out(out, (len(places), *segment.shape), segment.dtype)
        with reading(shelf.key):
            try:
                return reader.fill(places, out)
            except (OSError, BadRowError) as error:
                reader.recover(error)
        return None

    def _get_all(self, shelf: Shelf, ids: Sequence[str], one: bool = False) -> dict[str, Found]:
        """{id: (values, answer, made)} of distinct ids: memory, disk, then whatever a miss takes."""
        counts = self.stats.counts()
        found: dict[str, Found] = {}
        absent: list[str] = []
        listed = False
        for id in distinct(ids):
            hit = self._look(shelf, id)
            if hit is None and not listed:
                # The first miss of a call lists the directory again; once is enough for all of them.
                listed = True
                with reading(shelf.key):
                    shelf.reader.refresh()
                hit = self._look(shelf, id)  # whoever saw the change: it may have been another thread
            if hit is None:
                absent.append(check_id(id))
            else:
                counts[MEMORY_HITS if hit[1] == "memory" else DISK_HITS] += 1
                found[id] = (*hit, None)
        if absent:
            counts[MISSES] += len(absent)
            found.update(self._make(shelf, absent, counts, one))
        return found

    def _make(self, shelf: Shelf, absent: Sequence[str], counts: list[int], one: bool) -> dict[str, Found]:
        own = self._catalog.own_recipe(shelf.key)
        if self.compute is None or own is None or shelf.fingerprint != own.fingerprint or shelf.reader.unread:
            records = recorded(shelf, absent)
            if len(records) == len(absent):
                raise failure_of(shelf, records, len(absent), one)
            raise absence(self.root, shelf.key, [id for id in absent if id not in records], shelf)
        return Miss(shelf, self.compute, lambda id: self._look(shelf, id), counts, self.read_only).make(absent, one)

    def _look(self, shelf: Shelf, id: str) -> Hit | None:
        (place,) = shelf.places([id])
        if place is None:
            return None
        if self._memory is not None:
            values = self._memory.get(place)
            if values is not None:
                return values, "memory"
        with reading(id):
            values = shelf.reader.get(id)
        if values is None:
            return None
        self.stats.counts()[BYTES_READ] += values.nbytes
        if self._memory is not None:
            self._memory.put(place, values)
        return values, "disk"

    # -- writing -------------------------------------------------------------------------------

    def put_many(
        self,
        key: FeatureKey | str,
        ids: Sequence[str],
        values: NDArray[Any] | Sequence[NDArray[Any]],
        *,
        recipe: Recipe | Mapping[str, Any],
        frame_indices: Sequence[NDArray[np.int64]] | NDArray[np.int64] | None = None,
        timestamps_s: Sequence[NDArray[np.float64]] | NDArray[np.float64] | None = None,
        provenance: Sequence[Mapping[str, Any]] | None = None,
        overwrite: bool = False,
        made_with: Mapping[str, Any] | None = None,
    ) -> int:
        """Store rows; returns when they are durable, with how many were not there before.

        values          (N, n_frames, dim) float16 | float32, kept in that dtype; under an `all` key N arrays (n_i, dim)
        frame_indices   (N, n_frames) int64; timestamps_s (N, n_frames) float64; under an `all` key N arrays each
        provenance      N JSON objects, with `sources` [{path, size, mtime_ns, sha256}]
        Raises ValuesError, ExistsError, RecipeMismatchError, StoreError.
        """
        key = as_key(key)
        if self.read_only:
            raise ReadOnlyError(f"{self.root} was opened with read_only=True: nothing can be put into it")
        ids = list(ids)
        features = gathered(ids, values, frame_indices, timestamps_s, provenance)
        if not features:
            return 0
        recipe = Recipe.of(recipe)
        shelf = self._catalog.exact(key, recipe.fingerprint, recipe)
        is_new = not os.path.isdir(shelf.place.recipe_dir)
        count = shelf.put(features, overwrite=features if overwrite else (), made_with=made_with)
        if is_new:  # one more to choose from
            self._forget()
        return count

    def delete(self, key: FeatureKey | str, ids: Sequence[str], *, recipe: str | None = None) -> int:
        """Remove the rows of these ids under one recipe; how many were there."""
        shelf = self._writable(key, recipe)
        return shelf.delete(ids) if shelf is not None else 0

    def compact(self, key: FeatureKey | str, *, recipe: str | None = None, codec: str | None = None) -> int:
        """Merge the segments of one recipe; how many were merged.

        codec   `zstd` or `none` for all rows; None keeps what each segment has
        """
        shelf = self._writable(key, recipe)
        return shelf.compact(codec) if shelf is not None else 0

    def refresh(self) -> None:
        """See what other processes added, deleted or overwrote."""
        self._forget()
        shelves = self._catalog.opened()
        for shelf in shelves:
            with reading(shelf.key):
                shelf.reader.refresh(force=True)
        if self._memory is not None:
            live = {segment for shelf in shelves for segment in shelf.reader.segments}
            self._memory.keep(lambda place: place[0] in live)

    def _forget(self) -> None:
        self._catalog.forget()
        self._last = (None, None, None)

    # -- looking -------------------------------------------------------------------------------

    def keys(self) -> list[FeatureKey]:
        """Every key with at least one recipe, sorted."""
        return self._catalog.keys()

    def ids(self, key: FeatureKey | str, *, recipe: str | None = None) -> list[str]:
        """Ids of the stored samples, sorted by code point; none under a key that is not stored, see the log."""
        shelf = self._catalog.shelf(key, recipe)
        if shelf is None:
            self._catalog.tell_if_mistyped(as_key(key))
            return []
        with reading(key):
            shelf.reader.refresh()
            return shelf.reader.ids()

    def missing(self, key: FeatureKey | str, ids: Iterable[str], *, recipe: str | None = None) -> list[str]:
        """Those of `ids` that are not stored, in the order given."""
        return [id for id, stored in self._stored(key, ids, recipe) if not stored]

    def available(self, key: FeatureKey | str, ids: Iterable[str], *, recipe: str | None = None) -> list[str]:
        """Those of `ids` that are stored, in the order given."""
        return [id for id, stored in self._stored(key, ids, recipe) if stored]

    def recipes(self, key: FeatureKey | str) -> dict[str, Recipe]:
        """{fingerprint: recipe} of what is stored under a key, sorted."""
        key = as_key(key)
        return {name: self._catalog.exact(key, name).recipe for name in self._catalog.fingerprints(key)}

    def failures(self, key: FeatureKey | str, *, recipe: str | None = None) -> dict[str, FailureRecord]:
        """{id: record} of the samples that cannot be made under one recipe, sorted."""
        shelf = self._catalog.shelf(key, recipe)
        return shelf.failures.all() if shelf is not None else {}

    def shelf(self, key: FeatureKey | str, *, recipe: str | None = None) -> Shelf | None:
        """One recipe of a key with its segments, locks and records; None where nothing is stored."""
        return self._catalog.shelf(key, recipe)

    def _stored(self, key: FeatureKey | str, ids: Iterable[str], recipe: str | None) -> list[tuple[str, bool]]:
        ids = list(ids)
        shelf = self._catalog.shelf(key, recipe)
        if shelf is None:
            return [(id, False) for id in ids]
        with reading(key):
            shelf.reader.refresh()
        return [(id, place is not None) for id, place in zip(ids, shelf.places(ids), strict=True)]

    def _writable(self, key: FeatureKey | str, recipe: str | None) -> Shelf | None:
        if self.read_only:
            raise ReadOnlyError(f"{self.root} was opened with read_only=True: nothing can be changed in it")
        return self._catalog.shelf(key, recipe)

    def _nothing(self, key: FeatureKey | str, ids: Sequence[str]) -> Exception:
        """What to raise where nothing at all is stored under a key."""
        self.stats.counts()[MISSES] += len(distinct(ids))
        return absence(self.root, key, ids, None, self._catalog.nearest(as_key(key)))


def _checked_out(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or not fits(out, shape, dtype):
        found = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValuesError(f"out is {found}, not a writable C-contiguous {shape} {np.dtype(dtype)} as stored")
    return out
