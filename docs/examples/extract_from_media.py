"""Make features from videos with a registered encoder of your own, and let the store keep them.

The decoding, the choice of frames, the checks and the storing are done for you; the encoder is one class with two
methods. The clips are those of the demo dataset, which is drawn by code and whose emotion peaks are known.
"""

from pathlib import Path

import numpy as np

from featurestore import Extractor, FeatureStore, read_manifest, register_encoder
from featurestore.demo import write_dataset

KEY = "mer2023/frame/MEAN_COLOUR/emotion_peak/4"


class MeanColour:
    """The mean colour of each of 4 x 4 fields of a frame."""

    modality = "frame"
    version = 1  # raise it when the numbers change
    dim = 48  # length of a vector
    size = (32, 32)  # (height, width) to which frames are squashed

    def __init__(self, weights: str | None = None, device: str | None = None) -> None:
        self.weights, self.device = weights, device  # there are none to load

    def config(self) -> dict[str, object]:
        """All that changes the numbers, as JSON; it becomes a part of the recipe."""
        return {"fields": [4, 4]}

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """(n, 32, 32, 3) uint8 RGB -> (n, 48) float32 in [0, 1]."""
        fields = batch.reshape(len(batch), 4, 8, 4, 8, 3).mean(axis=(2, 4))
        return (fields / 255).reshape(len(batch), self.dim).astype(np.float32)


def main() -> None:
    # A name and where the class is: "module:Class". It is imported when the first sample is missing.
    register_encoder("MEAN_COLOUR", f"{Path(__file__).stem}:MeanColour")

    write_dataset("demo")
    samples = read_manifest("demo/manifest.csv")
    with Extractor({"mer2023": samples}) as compute:
        store = FeatureStore("features", compute=compute)
        features = store.get_many(KEY, list(samples))  # what is missing is computed and kept
        print("computed:", features.shape, features.dtype)

    # From now on neither the videos nor the encoder are needed.
    store = FeatureStore("features")
    kept = store.get_features(KEY, "sample_00000001")
    print("frames around the peak:", kept.frame_indices)
    print("the same numbers:", np.array_equal(kept.values, features[list(samples).index("sample_00000001")]))


if __name__ == "__main__":  # the processes that decode are started afresh and import this file
    main()
