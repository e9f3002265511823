"""A dataset to try things on: a dozen short clips with sound, made in code, in the shape of MER2023.

Everything about it is known: each face's expression follows a curve, so the right peak frame is too.
"""

from __future__ import annotations

from featurestore.demo.dataset import write_dataset
from featurestore.demo.script import CLIPS, Clip

__all__ = ["CLIPS", "Clip", "write_dataset"]
