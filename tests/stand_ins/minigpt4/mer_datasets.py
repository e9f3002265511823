"""Tokens of a clip, (1, 64, d) of video and of sound; what cannot be read becomes zeros, which get no attention."""

import os

import numpy as np


class FeatureDataset:
    def __init__(self, root, ids):
        self.root, self.ids = root, ids

    def _load_npy(self, path, shape):
        try:
            array = np.load(path, allow_pickle=True)
            return array if array.dtype.kind == "f" else array.astype(np.float32)
        except Exception as error:  # noqa: BLE001
            print(f"cannot load {path}: {error}")  # noqa: T201
            return np.zeros(shape, np.float32)

    def __getitem__(self, index):
        id = self.ids[index]
        video = self._load_npy(os.path.join(self.root, "EVA-ViT-G", id + ".npy"), (1, 64, 1408))
        audio = self._load_npy(os.path.join(self.root, "whisper-large-v3", id + ".npy"), (1, 64, 1280))
        return {"video": video, "audio": audio, "id": id}

    def collater(self, items):
        """(bs, 64, d) each, as the model views them, and whether each is there at all."""
        batch = {}
        for name in ("video", "audio"):
            tokens = np.stack([item[name] for item in items]).reshape(len(items), 64, -1)
            batch[name], batch[name + "_mask"] = tokens, np.abs(tokens).sum(axis=(1, 2)) > 0
        return batch
