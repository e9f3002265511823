"""One data set object of a fusion run: all features of three modalities in memory."""

import numpy as np

from toolkit.utils.read_data import *  # noqa: F403

try:
    from torch import FloatTensor, LongTensor
except ImportError:  # where there is no torch its casts are numpy's

    def FloatTensor(values):
        return np.asarray(values, np.float32)

    def LongTensor(values):
        return np.asarray(values, np.int64)


SCALES = {"utt": 1, "frm_align": 6, "frm_unalign": 12}


class Data_Feat:
    def __init__(self, args, names, labels):
        self.names, self.labels = names, labels
        scale = SCALES[args["feat_type"]]
        if args["feat_type"] == "frm_unalign":
            assert all(args[root].endswith("FRA") for root in ("audio_root", "text_root", "video_root"))
        audios, self.adim = func_read_multiprocess(args["audio_root"], names, read_type="feat")  # noqa: F405
        texts, self.tdim = func_read_multiprocess(args["text_root"], names, read_type="feat")  # noqa: F405
        videos, self.vdim = func_read_multiprocess(args["video_root"], names, read_type="feat")  # noqa: F405
        audios, texts, videos = (feature_scale_compress(x, scale) for x in (audios, texts, videos))  # noqa: F405
        if args["feat_type"] == "utt":
            audios, texts, videos = align_to_utt(audios, texts, videos)  # noqa: F405
        else:
            if args["feat_type"] == "frm_align":
                audios, texts, videos = align_to_text(audios, texts, videos)  # noqa: F405
            audios, texts, videos = pad_to_maxlen_pre_modality(audios, texts, videos)  # noqa: F405
        self.audios, self.texts, self.videos = audios, texts, videos

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        label = self.labels[index]
        return {
            "audio": self.audios[index], "text": self.texts[index], "video": self.videos[index],
            "emo": label["emo"], "val": label["val"], "name": self.names[index],
        }  # fmt: skip

    def collater(self, instances):
        batch = {
            "audios": FloatTensor(np.array([each["audio"] for each in instances])),
            "texts": FloatTensor(np.array([each["text"] for each in instances])),
            "videos": FloatTensor(np.array([each["video"] for each in instances])),
        }
        emos = LongTensor([each["emo"] for each in instances])
        vals = FloatTensor([each["val"] for each in instances])
        return batch, emos, vals, [each["name"] for each in instances]
