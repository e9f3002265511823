"""What MER-Factory and OpenFace say about a sample: where its emotion peaks, and descriptions of its face.

Three tools write three schemas:

- upstream MER-Factory: `*_au_analysis.json` without any frame number, `*_merr_data.json` with the number of
  the overall peak frame, and OpenFace's table `{sample}.csv` beside them;
- AffectGPT's fork reads `au_info` (peak and number of frames), `summary_description` and
  `fine_grained_descriptions` ({frame: text}), written by a MER-Factory that is not published;
- its guide has one text at `fine_grained_descriptions.summary_description`.

OpenFace and MER-Factory count frames from 1 (`frame`, `frame_number`), `au_info.peak_index` from 0.  Here every
index counts from 0.  Nothing is guessed: what was used is returned with the result.
"""

from __future__ import annotations

from featurestore.merfactory.descriptions import Descriptions, descriptions_of
from featurestore.merfactory.document import read_json
from featurestore.merfactory.peak import Peak, peak_of

__all__ = ["Descriptions", "Peak", "descriptions_of", "peak_of", "read_json"]
