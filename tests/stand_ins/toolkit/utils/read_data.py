"""Features of many samples, one `.npy` file each, through a pool of processes; and how lengths are made equal."""

import math
import multiprocessing
import os

import numpy as np


def func_read_one_feat(argv):
    feature_root, name, _processor, _model_name = argv
    path = os.path.join(feature_root, name + ".npy")
    folder = os.path.join(feature_root, name)
    found = []
    if os.path.exists(path):
        found.append(np.load(path).squeeze())
    elif os.path.isdir(folder):  # faces of old data sets: a file for each frame
        found.extend(np.load(os.path.join(folder, file)) for file in sorted(os.listdir(folder)))
    else:
        raise Exception("feature path or dir do not exist!")
    feature = np.array(found).squeeze()
    return feature[np.newaxis, :] if feature.ndim == 1 else feature


def func_read_multiprocess(feature_root, names, processor=None, read_type="feat", model_name=None):
    """(a list of (T_i, D), D)."""
    tasks = [(feature_root, name, processor, model_name) for name in names]
    with multiprocessing.Pool(processes=8) as pool:
        features = list(pool.imap(func_read_one_feat, tasks))
    return features, np.array(features[0]).shape[-1]


def func_mapping_feature(feature, dst_len):
    """(T, D) to (dst_len, D): zeros in front, or means of groups, of which the first has zeros in front."""
    length, dim = feature.shape
    if length == dst_len:
        return feature
    if length < dst_len:
        return np.concatenate((np.zeros((dst_len - length, dim)), feature), axis=0)
    size = math.ceil(length / dst_len)
    feature = np.concatenate((np.zeros((size * dst_len - length, dim)), feature), axis=0)
    return np.mean(feature.reshape(dst_len, size, dim), axis=1)


def feature_scale_compress(features, scale):
    for ii in range(len(features)):
        features[ii] = func_mapping_feature(features[ii], math.ceil(len(features[ii]) / scale))
    return features


def align_to_utt(audios, texts, videos):
    for ii in range(len(audios)):
        audios[ii] = np.mean(audios[ii], axis=0)
        texts[ii] = np.mean(texts[ii], axis=0)
        videos[ii] = np.mean(videos[ii], axis=0)
    return audios, texts, videos


def align_to_text(audios, texts, videos):
    for ii in range(len(audios)):
        audios[ii] = func_mapping_feature(audios[ii], len(texts[ii]))
        videos[ii] = func_mapping_feature(videos[ii], len(texts[ii]))
    return audios, texts, videos


def pad_to_maxlen_pre_modality(*modalities):
    for features in modalities:
        longest = max(len(feature) for feature in features)
        for ii in range(len(features)):
            features[ii] = func_mapping_feature(features[ii], longest)
    return modalities
