"""The same for top-n runs: 3n sets, `feat0` and so on."""

import numpy as np

from toolkit.data.feat_data import FloatTensor, LongTensor
from toolkit.utils.read_data import *  # noqa: F403


class Data_Feat_TOPN:
    def __init__(self, args, names, labels):
        self.names, self.labels = names, labels
        self.features, self.dims = [], []
        for root in args["feat_roots"]:
            features, dim = func_read_multiprocess(root, names, read_type="feat")  # noqa: F405
            for ii in range(len(features)):
                features[ii] = np.mean(features[ii], axis=0)
            self.features.append(features)
            self.dims.append(dim)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        found = {f"feat{ii}": features[index] for ii, features in enumerate(self.features)}
        return {**found, "emo": self.labels[index]["emo"], "val": self.labels[index]["val"], "name": self.names[index]}

    def collater(self, instances):
        names = [f"feat{ii}" for ii in range(len(self.features))]
        batch = {name: FloatTensor(np.array([each[name] for each in instances])) for name in names}
        emos = LongTensor([each["emo"] for each in instances])
        return batch, emos, FloatTensor([each["val"] for each in instances]), [each["name"] for each in instances]
