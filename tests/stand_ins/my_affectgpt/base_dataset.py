"""`{root}/{dataset}/{folder}/{sample}.npy` of frames, faces, sound; else it is extracted live, with a print."""

import os

import numpy as np


class BaseDataset:
    def __init__(
        self, dataset, preextracted_root, visual="CLIP_VIT_LARGE", acoustic="HUBERT_LARGE", sampling="emotion_peak"
    ):
        self.dataset, self.root = dataset, preextracted_root
        if os.path.basename(os.path.normpath(preextracted_root)) == dataset:  # with or without the data set's level
            self.root = os.path.dirname(os.path.normpath(preextracted_root))
        self.folders = {
            "frame": f"frame_{visual}_{sampling}_8frms",
            "face": f"face_{visual}_8frms",
            "audio": f"audio_{acoustic}_8clips",
        }

    def load(self, modality, sample_name):
        path = os.path.join(self.root, self.dataset, self.folders[modality], sample_name + ".npy")
        if os.path.exists(path):
            features = np.load(path)
            return features.astype(np.float32)
        print(f"no features of {sample_name} at {path}: extracted live")  # noqa: T201
        return None
