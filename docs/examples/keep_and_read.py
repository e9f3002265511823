"""Keep the features of an encoder of your own, and read them back.

An encoder here is any function that makes numbers of frames. The store needs to be told two things about them: the
key, which is how you will ask for them, and the recipe, which is everything else that changes the numbers.
"""

import numpy as np

from featurestore import FeatureKey, FeatureStore, MissingFeatureError

KEY = FeatureKey(dataset="toy", modality="frame", encoder="MEAN_COLOUR", sampling="uniform", n_frames=4)
RECIPE = {"encoder": "mean of each channel", "version": 1, "scale": 255}


def frames_of(id: str) -> np.ndarray:
    """(4, 32, 32, 3) uint8: noise in the place of a decoded video."""
    return np.random.default_rng(int(id[-2:])).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def encode(frames: np.ndarray) -> np.ndarray:
    """(n_frames, height, width, 3) uint8 -> (n_frames, 3) float32 in [0, 1]."""
    return (frames.mean(axis=(1, 2)) / 255).astype(np.float32)


def main() -> None:
    store = FeatureStore("features")
    ids = [f"clip_{number:02}" for number in range(12)]

    # Only what is not stored is encoded, so the script may be stopped and run again.
    missing = store.missing(KEY, ids)
    if missing:
        features = np.stack([encode(frames_of(id)) for id in missing])
        indices = np.tile(np.arange(4), (len(missing), 1))  # which frame each vector is of
        store.put_many(KEY, missing, features, recipe=RECIPE, frame_indices=indices)
    # When put_many returns, the features are on the disk: another process, or a later one, finds them.

    one = store.get(KEY, "clip_03")
    several = store.get_many(KEY, ["clip_07", "clip_03"])  # in the order that is asked for
    print("one:", one.shape, one.dtype)
    print("several:", several.shape)
    print("bit for bit what was encoded:", np.array_equal(one, encode(frames_of("clip_03"))))

    # What is not stored is an error, never zeros.
    try:
        store.get(KEY, "clip_99")
    except MissingFeatureError as error:
        print("clip_99:", type(error).__name__)


if __name__ == "__main__":
    main()
