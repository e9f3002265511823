"""Datasets: each is declared as data in a TOML file; this code reads the declarations and the files they name."""

from __future__ import annotations

from featurestore.datasets.declaration import Dataset, dataset_names, read_declaration, resolve_dataset, unibench_names
from featurestore.datasets.files import Roots, dataset_root
from featurestore.datasets.source import load_dataset, make_samples, split_names
from featurestore.datasets.survey import Survey, survey_dataset

__all__ = [
    "Dataset",
    "Roots",
    "Survey",
    "dataset_names",
    "dataset_root",
    "load_dataset",
    "make_samples",
    "read_declaration",
    "resolve_dataset",
    "split_names",
    "survey_dataset",
    "unibench_names",
]
