"""FeatureStore: has the features of a sample, or makes them, or says why not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MissingFeatureError, ReadOnlyError, ValuesError
from featurestore.features import Compute, Failure, Features, distinct, gathered
from featurestore.key import FeatureKey, check_id
from featurestore.lookup import Frames, Lookup, Outcome
from featurestore.recipe import Recipe
from featurestore.stats import BYTES_READ, DISK_HITS, MISSES, Stats
from featurestore.storage.absence import absence, failure_of
from featurestore.storage.catalog import Catalog, as_key
from featurestore.storage.eviction import DEFAULT, policy_named
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.info import FeatureSetInfo, SampleInfo
from featurestore.storage.location import local
from featurestore.storage.maintenance import GRACE_S
from featurestore.storage.memory import MemoryTier
from featurestore.storage.rows import DTYPES, IMPORTED
from featurestore.view import View


class FeatureStore:
    """A directory of features.  Constructing one touches no disk and costs nothing.

    What other processes delete or overwrite shows after `refresh()`; what they add shows at the next
    miss.  A store object may be used by several threads, forked, and pickled.

    Args:
        root: The directory, made by the first write; a relative one is fixed to the working directory of now.
        compute: Makes what is missing; without one a miss is MissingFeatureError.
        memory_bytes: Budget of the memory tier in bytes, 0 for none.
        memory_policy: Which rows leave the tier first, `bip` or `lru`.
        read_only: Nothing is written: misses are computed and returned, counted as `not_kept`.
        fingerprints: {key: prefix of a fingerprint}, the recipe to read where a key has several.

    Raises:
        ConfigError: The root is a URL, or the policy of a tier is not known.

    Example:
        >>> store = FeatureStore("features", memory_bytes=4 << 30)                      # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        compute: Compute | None = None,
        *,
        memory_bytes: int = 0,
        memory_policy: str = DEFAULT,
        read_only: bool = False,
        fingerprints: Mapping[FeatureKey | str, str] | None = None,
    ) -> None:
        self.root = local(root)
        self.compute = compute
        self.memory_bytes = memory_bytes
        self.read_only = read_only
        self.pins = {str(key): prefix for key, prefix in (fingerprints or {}).items()}
        self.stats = Stats()
        self._memory_policy = memory_policy
        policy = policy_named(memory_policy)  # refused also where no tier would use it
        self._memory = MemoryTier(memory_bytes, policy) if memory_bytes else None
        self._catalog = Catalog(self.root, compute, self.pins)
        self._lookup = Lookup(self._catalog, compute, self._memory, self.stats, read_only)
        self._last: tuple[FeatureKey | str | None, str | None, FeatureSet | None] = (None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        settings = {
            "memory_bytes": self.memory_bytes,
            "memory_policy": self._memory_policy,
            "read_only": self.read_only,
        }
        return {"root": self.root, "compute": self.compute, "fingerprints": self.pins, **settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.pop("root"), state.pop("compute"), **state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.root)!r}, read_only={self.read_only})"

    # -- reading -------------------------------------------------------------------------------

    def get(
        self, key: FeatureKey | str, id: str, frames: Frames | None = None, *, fingerprint: str | None = None
    ) -> NDArray[Any]:
        """Read the features of one sample, or make them.

        Args:
            key: The feature key, or its text.
            id: Of the sample.
            frames: Only these: a slice, or ascending positions among the frames of the sample.  No others are read
                where frames are stored with checksums of their own: under an `all` key, and from 16 KiB a frame on.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            (n_frames, *item): a fresh, writable array in the stored dtype, the same bits as stored.

        Raises:
            ValuesError: `frames` has what is not a frame of the sample.
            MissingFeatureError: Not stored, and no way to compute it.
            FailedSampleError: It cannot be made.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            CorruptSegmentError: What is stored is damaged.

        Example:
            >>> store.get("mer2023/frame/CLIP_VIT_LARGE/uniform/8", "sample_00000001").shape    # doctest: +SKIP
            (8, 768)
            >>> store.get("mine/face/manet_UTT/all", "sample_00000001", [40, 41]).shape         # doctest: +SKIP
            (2, 1024)
        """
        last_key, last_fingerprint, feature_set = self._last
        if feature_set is None or last_key is not key or last_fingerprint is not fingerprint:
            feature_set = self._catalog.feature_set(key, fingerprint)
            if feature_set is None:
                raise self._nothing(key, [id])
            self._last = (key, fingerprint, feature_set)
        seen = None
        if self._memory is None:
            reader = feature_set.reader
            seen = reader.seen
            try:
                values: NDArray[Any] | None = reader.get(id, frames)
            except (OSError, ValueError, AttributeError, TypeError):
                values = seen = None  # read again below, where it is said what is wrong
            if values is not None:
                counts = self.stats.counts()
                counts[DISK_HITS] += 1
                counts[BYTES_READ] += values.nbytes
                return values
        if frames is not None:
            return self._lookup.frames(feature_set, id, frames)[0]
        return self._lookup.one(feature_set, id, seen)[0]

    def get_features(
        self, key: FeatureKey | str, id: str, frames: Frames | None = None, *, fingerprint: str | None = None
    ) -> Features:
        """Read or make one sample, with what is known of its values.

        Args:
            key: The feature key, or its text.
            id: Of the sample.
            frames: Only these, as in `get`: values, frame indices and timestamps are of them alone.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            Values (n_frames, *item), frame indices, timestamps, provenance, recipe, and where they came from.

        Raises:
            FeatureStoreError: As `get`.

        Example:
            >>> store.get_features(key, "sample_00000001").frame_indices                    # doctest: +SKIP
            array([ 0, 23, 38, 39, 40, 41, 42, 51])
        """
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is None:
            raise self._nothing(key, [id])
        if frames is not None:
            return self._lookup.described_frames(feature_set, id, frames)
        (outcome,) = self._lookup.described(feature_set, [id]).values()
        if outcome is None:
            raise absence(self.root, key, [id], feature_set)
        if not isinstance(outcome, Features):
            raise failure_of(feature_set, {id: outcome}, 1, one=True)
        return outcome

    def fetch(
        self, key: FeatureKey | str, ids: Sequence[str], *, fingerprint: str | None = None
    ) -> dict[str, Features | Failure]:
        """Read or make several samples: `get_features` of all of them in one trip, and a Failure where there are none.

        Args:
            key: The feature key, or its text.
            ids: Of the samples; one that comes twice has one outcome.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            One outcome for each distinct id, in the order of the request.  What can be made is made and stored.  A
            Failure says why a sample cannot be made, from its record or the compute; its reason is "missing" where the
            sample is not stored and this store has no compute for it.

        Raises:
            FeatureStoreError: What concerns all samples: the disk, weights, settings, which recipe is meant.

        Example:
            >>> outcomes = store.fetch(key, ids)                                            # doctest: +SKIP
            >>> {id for id, each in outcomes.items() if isinstance(each, Failure)}          # doctest: +SKIP
            {'sample_00000007'}
        """
        ids = list(distinct(ids))
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is None:
            outcomes: dict[str, Features | Outcome] = dict.fromkeys(map(check_id, ids))
            self.stats.counts()[MISSES] += len(ids)
        else:
            outcomes = dict(self._lookup.described(feature_set, ids))
        return {id: self._as_outcome(key, id, feature_set, outcome) for id, outcome in outcomes.items()}

    def _as_outcome(
        self, key: FeatureKey | str, id: str, feature_set: FeatureSet | None, outcome: Any
    ) -> Features | Failure:
        if outcome is None:
            error = absence(
                self.root, key, [id], feature_set, self._catalog.nearest(as_key(key)) if feature_set is None else None
            )
            if not isinstance(error, MissingFeatureError):
                raise error
            return Failure("missing", str(error), deterministic=False)
        if isinstance(outcome, FailureRecord):
            return Failure(outcome.reason, outcome.message, sources=outcome.sources)
        told: Features | Failure = outcome
        return told

    def get_many(
        self,
        key: FeatureKey | str,
        ids: Sequence[str],
        out: NDArray[Any] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> NDArray[Any]:
        """Read or make the features of several samples as one array.

        Args:
            key: The feature key, or its text; not an `all` key, whose samples make no array: see `get_ragged`.
            ids: N of them, duplicates allowed.
            out: A C-contiguous array (N, n_frames, *item) of the stored dtype, written and returned.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            (N, n_frames, *item) in the order of the request, in the stored dtype.

        Raises:
            ValuesError: An `all` key, or an `out` that does not fit.
            MissingFeatureError: Some are not stored, and there is no way to compute them.
            FailedSamplesError: Some cannot be made; it has the values of the others, and what could be made is stored.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            CorruptSegmentError: What is stored is damaged.

        Example:
            >>> store.get_many(key, ["sample_00000002", "sample_00000001"]).shape           # doctest: +SKIP
            (2, 8, 768)
        """
        ids = list(ids)
        feature_set = self._catalog.feature_set(key, fingerprint)
        if (as_key(key) if feature_set is None else feature_set.key).n_frames == "all":
            raise ValuesError(
                f"samples of {key} differ in their number of frames, so that get_many cannot give one array: "
                "get_ragged gives a list of arrays"
            )
        if feature_set is None:
            if ids:
                raise self._nothing(key, ids)
            return np.empty((0, 0, 0), np.float32) if out is None else out
        batch: NDArray[Any] = self._lookup.batch(feature_set, ids, out)
        return batch

    def get_ragged(
        self, key: FeatureKey | str, ids: Sequence[str], *, fingerprint: str | None = None
    ) -> list[NDArray[Any]]:
        """Read or make the features of several samples as a list of arrays, under any key.

        Args:
            key: The feature key, or its text.
            ids: N of them; duplicates are arrays of their own.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            N arrays (n_frames, *item) in the order of the request, in the stored dtype.

        Raises:
            FeatureStoreError: As `get_many`, but for what concerns `out` and `all`.

        Example:
            >>> [values.shape for values in store.get_ragged("mine/au/CLIP_TEXT/au_summary/all", ids)]  # doctest: +SKIP
            [(3, 512), (1, 512)]
        """
        ids = list(ids)
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is None:
            if ids:
                raise self._nothing(key, ids)
            return []
        batch: list[NDArray[Any]] = self._lookup.batch(feature_set, ids, ragged=True)
        return batch

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
        axes: tuple[str, ...] | None = None,
        overwrite: bool = False,
        made_with: Mapping[str, Any] | None = None,
    ) -> int:
        """Store the features of several samples; they are durable when it returns.

        Args:
            key: The feature key, or its text.
            ids: N of them, each once.
            values: (N, n_frames, *item) float16, float32 or uint8, kept in that dtype; under an `all` key N arrays
                (n_i, *item).  An item is (dim,), (tokens, dim), (layers, dim), ...; bfloat16 is kept as float32.
                float64 too under the recipe of an import, whose `imported` is true.
            recipe: Everything besides the key that decides the values.
            frame_indices: (N, n_frames) integers; under an `all` key N arrays (n_i,).
            timestamps_s: (N, n_frames) seconds; under an `all` key N arrays (n_i,).
            provenance: N JSON objects, with `sources` [{path, size, mtime_ns, sha256}].
            axes: Names of the axes of an item, e.g. ("token", "feature"); they belong to what a recipe's rows share.
            overwrite: Replace other values that are stored for these samples.
            made_with: Versions that may change last bits, kept with the segment.

        Returns:
            How many samples were not stored before.

        Raises:
            ValuesError: The values are not of that form, or not finite.
            ExistsError: Other values are stored, and `overwrite` is false; nothing is stored then.
            RecipeMismatchError: What is stored under this recipe has another dtype, item or axes.
            StoreError: The disk.

        Example:
            >>> store.put_many(key, ["a", "b"], values, recipe={"weights": "ab12"})         # doctest: +SKIP
            2
        """
        key = as_key(key)
        if self.read_only:
            raise ReadOnlyError(f"{self.root} was opened for reading only: nothing can be put into it")
        ids = list(ids)
        features = gathered(ids, values, frame_indices, timestamps_s, provenance, axes)
        if not features:
            return 0
        recipe = Recipe.of(recipe)
        feature_set = self._catalog.exact(key, recipe.fingerprint, recipe)
        is_new = not os.path.isdir(feature_set.layout.recipe_dir)
        count = feature_set.put(
            features,
            overwrite=features if overwrite else (),
            made_with=made_with,
            dtypes=IMPORTED if recipe.data.get("imported") is True else DTYPES,
        )
        if is_new:  # one more to choose from
            self._forget()
        return count

    def put(
        self,
        key: FeatureKey | str,
        id: str,
        values: NDArray[Any],
        *,
        recipe: Recipe | Mapping[str, Any],
        frame_indices: NDArray[np.int64] | None = None,
        timestamps_s: NDArray[np.float64] | None = None,
        provenance: Mapping[str, Any] | None = None,
        axes: tuple[str, ...] | None = None,
        overwrite: bool = False,
        made_with: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store the features of one sample.  Many are stored much faster together, by `put_many`.

        Args:
            key: The feature key, or its text.
            id: Of the sample.
            values: (n_frames, *item) float16, float32 or uint8, kept in that dtype.
            recipe: Everything besides the key that decides the values.
            frame_indices: (n_frames,) integers: which frames of the sample they are.
            timestamps_s: (n_frames,) floats: the seconds of those frames.
            provenance: A JSON object, with `sources` [{path, size, mtime_ns, sha256}].
            axes: Names of the axes of an item, e.g. ("token", "feature"); they belong to what a recipe's rows share.
            overwrite: Replace other values that are stored for this sample.
            made_with: Versions that may change last bits, kept with the segment.

        Returns:
            Whether the sample was not stored before; it is durable either way.

        Raises:
            ValuesError: The values are not of that form, or not finite.
            ExistsError: Other values are stored, and `overwrite` is false.
            RecipeMismatchError: What is stored under this recipe has another dtype, item or axes.
            StoreError: The disk.

        Example:
            >>> store.put(key, "sample_00000001", values, recipe={"weights": "ab12"})      # doctest: +SKIP
            True
        """
        count = self.put_many(
            key,
            [id],
            [values],
            recipe=recipe,
            frame_indices=None if frame_indices is None else [frame_indices],
            timestamps_s=None if timestamps_s is None else [timestamps_s],
            provenance=None if provenance is None else [provenance],
            axes=axes,
            overwrite=overwrite,
            made_with=made_with,
        )
        return count == 1

    def delete(self, key: FeatureKey | str, ids: Sequence[str], *, fingerprint: str | None = None) -> int:
        """Remove the rows of some samples under one recipe.

        Args:
            key: The feature key, or its text.
            ids: Of the samples; those that are not stored are passed over.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            How many of them were stored.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            ReadOnlyError: The store was opened with `read_only`.
            StoreError: The disk.
        """
        feature_set = self._writable(key, fingerprint)
        return feature_set.delete(ids) if feature_set is not None else 0

    def compact(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> int:
        """Merge the segments of one recipe.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            How many segments were merged.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            ReadOnlyError: The store was opened with `read_only`.
            StoreError: The disk.
        """
        feature_set = self._writable(key, fingerprint)
        return feature_set.compact() if feature_set is not None else 0

    def remove(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> bool:
        """Remove a whole feature set: every sample under one recipe, the recipe, and its records of failures.

        What processes that write meanwhile store begins a new feature set.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            Whether there was one.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            ReadOnlyError: The store was opened with `read_only`.
            StoreError: The disk.
        """
        feature_set = self._writable(key, fingerprint)
        if feature_set is None or not os.path.isdir(feature_set.layout.recipe_dir):
            return False
        feature_set.remove()
        self._forget()  # one less to choose from
        return True

    def gc(self, key: FeatureKey | str, *, fingerprint: str | None = None, grace_s: float = GRACE_S) -> int:
        """Free the space of segments that were replaced under one recipe, and of what killed writers left.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.  A whole one may also be that of a
                feature set that was removed: what a `remove` that was killed left behind is freed then.
            grace_s: Seconds for which a replaced segment stays, because readers may have it open.

        Returns:
            How many segments and abandoned files were removed; 0 where nothing is stored.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            ReadOnlyError: The store was opened with `read_only`.
            StoreError: The disk.
        """
        feature_set = None if self.read_only else self._catalog.left(as_key(key), fingerprint)
        feature_set = feature_set or self._writable(key, fingerprint)
        return feature_set.gc(grace_s) if feature_set is not None else 0

    def refresh(self) -> None:
        """See what other processes added, deleted or overwrote.

        Raises:
            StoreError: The disk.
        """
        self._forget()
        feature_sets = self._catalog.opened()
        for feature_set in feature_sets:
            with reading(feature_set.key):
                feature_set.reader.refresh(force=True)
        if self._memory is not None:
            live = {segment for feature_set in feature_sets for segment in feature_set.reader.segments}
            self._memory.keep(lambda position: position[0] in live)

    def _forget(self) -> None:
        self._catalog.forget()
        self._last = (None, None, None)

    # -- looking -------------------------------------------------------------------------------

    def keys(self) -> list[FeatureKey]:
        """List every key with at least one recipe.

        Returns:
            The keys, sorted by their text; none where there is no store.

        Raises:
            StoreError: The disk.
        """
        return self._catalog.keys()

    def ids(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> list[str]:
        """List the samples that are stored under a key.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            Their ids, sorted by code point; none under a key that is not stored, see the log.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            StoreError: The disk.
        """
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is None:
            self._catalog.tell_if_mistyped(as_key(key))
            return []
        with reading(key):
            feature_set.reader.refresh()
            return feature_set.reader.ids()

    def view(self, key: FeatureKey | str, ids: Sequence[str] | None = None, *, fingerprint: str | None = None) -> View:
        """Look at all samples of a key, or at some, as they are now: a mapping of ids to arrays under one snapshot.

        Args:
            key: The feature key, or its text.
            ids: Which samples, in this order; without them all that are stored, sorted.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            A view: `len`, `in`, iteration, `view[id]`, and `take` of many by position.  Values are read when asked for.

        Raises:
            MissingFeatureError: Some of `ids` are not stored; nothing is computed here.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            StoreError: The disk.

        Example:
            >>> view = store.view("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")        # doctest: +SKIP
            >>> {id: view[id].mean() for id in view}                                    # doctest: +SKIP
        """
        feature_set = self._there(key, fingerprint)
        ids = self.ids(key, fingerprint=fingerprint) if ids is None else list(ids)
        found = feature_set.find_all(ids)
        if len(absent := np.flatnonzero(found.numbers < 0)):
            raise absence(self.root, key, [ids[slot] for slot in absent.tolist()], feature_set)

        def count(samples: int) -> None:
            self.stats.counts()[DISK_HITS] += samples

        return View(feature_set, ids, found, count)

    def to_numpy(
        self, key: FeatureKey | str, *, fingerprint: str | None = None
    ) -> tuple[list[str], NDArray[Any]] | tuple[list[str], NDArray[Any], NDArray[np.int64]]:
        """Read everything under a key into memory.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            (ids, values): the ids sorted, values (N, n_frames, *item).  Under an `all` key (ids, values, offsets):
            values (total_frames, *item), of which sample i has values[offsets[i]:offsets[i + 1]].

        Raises:
            MissingFeatureError: Nothing is stored under the key.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            StoreError: The disk.

        Example:
            >>> ids, values = store.to_numpy("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")     # doctest: +SKIP
        """
        view = self.view(key, fingerprint=fingerprint)
        return (view.ids, *view.to_numpy())

    def open_zarr(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> Any:
        """Open the segments of a key with zarr-python, as they lie on the disk.

        Samples are in the order in which they were stored, those that were replaced or deleted among them until their
        grace is over, and nothing is checked: for tools that take Zarr.  `fstore pack` writes a copy in order.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            A read-only `zarr.Group` with one array per segment.

        Raises:
            MissingFeatureError: Nothing is stored under the key.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.

        Example:
            >>> list(store.open_zarr("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8"))    # doctest: +SKIP
            ['01793650000000000000-0123456789abcdef0123456789abcdef']
        """
        import zarr  # 0.4 s, which reading a store does not need

        return zarr.open_group(self._there(key, fingerprint).layout.segments, mode="r")

    def missing(self, key: FeatureKey | str, ids: Iterable[str], *, fingerprint: str | None = None) -> list[str]:
        """Say which of some samples are not stored.

        Args:
            key: The feature key, or its text.
            ids: Of the samples.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            Those of `ids` that are not stored, in the order given.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            StoreError: The disk.
        """
        return [id for id, stored in self._stored(key, ids, fingerprint) if not stored]

    def available(self, key: FeatureKey | str, ids: Iterable[str], *, fingerprint: str | None = None) -> list[str]:
        """Say which of some samples are stored.

        Args:
            key: The feature key, or its text.
            ids: Of the samples.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            Those of `ids` that are stored, in the order given.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
            StoreError: The disk.
        """
        return [id for id, stored in self._stored(key, ids, fingerprint) if stored]

    def recipes(self, key: FeatureKey | str) -> dict[str, Recipe]:
        """List the recipes under which a key is stored.

        Args:
            key: The feature key, or its text.

        Returns:
            {fingerprint: recipe}, sorted; empty where nothing is stored.

        Raises:
            UnknownRecipeError: The document with a recipe is gone or damaged.
            StoreError: The disk.
        """
        key = as_key(key)
        return {name: self._catalog.exact(key, name).recipe for name in self._catalog.fingerprints(key)}

    def failures(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> dict[str, FailureRecord]:
        """List the samples that are on record as failed under one recipe.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.  A whole one may also be that of a
                recipe under which nothing is stored.

        Returns:
            {id: record}, sorted.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.

        Example:
            >>> {id: record.reason for id, record in store.failures(key).items()}           # doctest: +SKIP
            {'sample_00000007': 'media'}
        """
        feature_set = self._catalog.left(as_key(key), fingerprint) or self._catalog.feature_set(key, fingerprint)
        return feature_set.failures.all() if feature_set is not None else {}

    def info(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> FeatureSetInfo:
        """Sum up one feature set: its recipe, how many samples of which shape, sizes, and what made them.

        Reads no values: a few files for each segment.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Raises:
            MissingFeatureError: Nothing is stored.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.

        Example:
            >>> store.info("mer2023/frame/CLIP_VIT_LARGE/uniform/8").samples                # doctest: +SKIP
            3373
        """
        return FeatureSetInfo.of(self._there(key, fingerprint))

    def explain(self, key: FeatureKey | str, id: str, *, fingerprint: str | None = None) -> SampleInfo:
        """Say where the features of one sample are, which frames and files they were made of, or why there are none.

        Computes nothing; a sample that is not stored, or is damaged, is no error here.

        Args:
            key: The feature key, or its text.
            id: Of the sample.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Raises:
            MissingFeatureError: Nothing is stored under the key.
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
        """
        return SampleInfo.of(self._there(key, fingerprint), id)

    def feature_set(self, key: FeatureKey | str, *, fingerprint: str | None = None) -> FeatureSet | None:
        """Open one recipe of a key, with its segments, locks and records.

        Args:
            key: The feature key, or its text.
            fingerprint: A unique prefix of it, where the key has several recipes.

        Returns:
            The feature set, or None where nothing is stored.

        Raises:
            AmbiguousRecipeError: The key has several recipes, and nothing says which.
        """
        return self._catalog.feature_set(key, fingerprint)

    def _stored(self, key: FeatureKey | str, ids: Iterable[str], fingerprint: str | None) -> list[tuple[str, bool]]:
        ids = list(ids)
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is None:
            return [(id, False) for id in ids]
        with reading(key):
            feature_set.reader.refresh()
        return [(id, position is not None) for id, position in zip(ids, feature_set.positions(ids), strict=True)]

    def _writable(self, key: FeatureKey | str, fingerprint: str | None) -> FeatureSet | None:
        if self.read_only:
            raise ReadOnlyError(f"{self.root} was opened for reading only: nothing can be changed in it")
        return self._catalog.feature_set(key, fingerprint)

    def _there(self, key: FeatureKey | str, fingerprint: str | None) -> FeatureSet:
        """The recipe that a call means, or MissingFeatureError where there is none."""
        feature_set = self._catalog.feature_set(key, fingerprint)
        if feature_set is not None and os.path.isdir(feature_set.layout.recipe_dir):
            return feature_set
        where = str(key) if feature_set is None else f"{key}@{feature_set.fingerprint[:8]}"
        near = self._catalog.nearest(as_key(key)) if feature_set is None else None
        hint = f"; did you mean {near}?" if near is not None else ""
        raise MissingFeatureError(
            f"nothing is stored under {where} in {self.root}{hint}",
            advice="" if hint else "`store.keys()` lists what is",
            key=key,
            root=self.root,
        )

    def _nothing(self, key: FeatureKey | str, ids: Sequence[str]) -> Exception:
        """What to raise where nothing at all is stored under a key."""
        self.stats.counts()[MISSES] += len(distinct(ids))
        return absence(self.root, key, ids, None, self._catalog.nearest(as_key(key)))
