"""The table of action units that OpenFace writes: one row a frame."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import DescriptionError
from featurestore.merfactory.document import read_bytes

MAX_CSV_BYTES = 128 << 20  # an hour has about 100 MB
_INTENSITY = re.compile(r"AU[0-9]{2}_r")


@dataclass(frozen=True)
class Strongest:
    """The frame with the highest sum of intensities."""

    frame: int
    """1-based, as in the table"""
    last_frame: int
    """highest frame number of the table"""
    file: Mapping[str, Any]
    """{path, size, mtime_ns, sha256}"""


def strongest(path: Path) -> Strongest:
    """The first row with the highest sum of `AU*_r`, as MER-Factory ranks them, among those with success.

    Raises DescriptionError for a table that is missing, cut off or not OpenFace's, or has no usable row.
    """
    data, file = read_bytes(path, MAX_CSV_BYTES)
    best: tuple[float, int] | None = None
    last = rows = 0
    for frame, strength in _rows(path, data):
        rows += 1
        last = max(last, frame)
        if strength is not None and (best is None or strength > best[0]):
            best = (strength, frame)
    if rows == 0:
        raise DescriptionError(f"{path} has no rows: OpenFace stopped before the first frame", path)
    if best is None:
        raise DescriptionError(f"{path}: OpenFace found no face in any of its {rows} rows", path)
    return Strongest(best[1], last, file)


def _rows(path: Path, data: bytes) -> Iterator[tuple[int, float | None]]:
    """(1-based frame, sum of intensities or None where no face was found) of each row."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(reader, [])]
        intensities = [i for i, name in enumerate(header) if _INTENSITY.fullmatch(name)]
        missing = [name for name in ("frame", "success") if name not in header]
        if missing or not intensities:
            raise DescriptionError(
                f"{path} is not a table of OpenFace with action units: no column {', '.join(missing) or 'AU*_r'}", path
            )
        frame_at, success_at = header.index("frame"), header.index("success")
        for cells in reader:
            if len(cells) != len(header):
                raise DescriptionError(
                    f"{path}, line {reader.line_num}: {len(cells)} of {len(header)} cells: the table is cut off; "
                    "run OpenFace again",
                    path,
                )
            frame, success = float(cells[frame_at]), float(cells[success_at])
            if frame != int(frame) or frame < 1:
                raise ValueError(f"frame {cells[frame_at]!r}")
            strength = sum(float(cells[i]) for i in intensities)
            yield int(frame), strength if success == 1 and math.isfinite(strength) else None
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{path} is not UTF-8 (byte {error.start})", path) from error
    except (csv.Error, ValueError, OverflowError) as error:
        raise DescriptionError(f"{path}, line {reader.line_num}: {error}", path) from error
