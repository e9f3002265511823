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
ONE_FACE = "run OpenFace's FeatureExtraction, which follows one face, or leave only the rows of one face in the table"
_INTENSITY = re.compile(r"AU[0-9]{2}_r")
# NaN as the libraries of several compilers print it: nan, -nan(ind), nan(0x8000), -1.#IND, 1.#QNAN, cut to 1.#R.
_NOT_A_NUMBER = re.compile(r"\s*[+-]?(nan(\(\w*\))?|1\.#\w+)\s*", re.IGNORECASE)


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

    Raises DescriptionError for a table that is missing, cut off, of several faces or not OpenFace's, or has no usable
    row.
    """
    data, file = read_bytes(path, MAX_CSV_BYTES)
    best: tuple[float, int] | None = None
    last = rows = 0
    for line, frame, strength in _rows(path, data):
        if frame <= last:
            raise DescriptionError(
                f"{path}, line {line}: frame {frame} comes after frame {last}, so the table is of several faces or of "
                f"several runs, and does not say whose peak is meant; {ONE_FACE}",
                path,
            )
        rows += 1
        last = frame
        if strength is not None and (best is None or strength > best[0]):
            best = (strength, frame)
    if rows == 0:
        raise DescriptionError(f"{path} has no rows: OpenFace stopped before the first frame", path)
    if best is None:
        raise DescriptionError(f"{path}: OpenFace found no face in any of its {rows} rows", path)
    return Strongest(best[1], last, file)


def _rows(path: Path, data: bytes) -> Iterator[tuple[int, int, float | None]]:
    """(line, 1-based frame, sum of intensities or None where there is none) of each row."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(reader, [])]
        intensities = [i for i, name in enumerate(header) if _INTENSITY.fullmatch(name)]
        missing = [name for name in ("frame", "success") if name not in header]
        if missing or not intensities:
            raise DescriptionError(
                f"{path} is not a table of OpenFace 2 with action units: no column {', '.join(missing) or 'AU*_r'}; "
                "run FeatureExtraction of OpenFace 2 with -aus (3.0 writes no intensities for the frames of a video)",
                path,
            )
        frame_at, success_at = header.index("frame"), header.index("success")
        face_at = header.index("face_id") if "face_id" in header else None
        face: float | None = None
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # an empty line, as some programs leave at the end
            if len(cells) != len(header):
                raise DescriptionError(
                    f"{path}, line {reader.line_num}: {len(cells)} of {len(header)} cells: the table is cut off; "
                    "run OpenFace again",
                    path,
                )
            frame, success = (_number(cells, header, at) for at in (frame_at, success_at))
            if not 1 <= frame < math.inf or frame != int(frame):
                raise ValueError(f"frame {cells[frame_at]!r} is no number from 1 on")
            strength = None
            if success == 1:  # of others nothing counts, and nothing need be a number
                own = _number(cells, header, face_at) if face_at is not None else 0.0
                if face is not None and own != face:
                    raise DescriptionError(
                        f"{path}, line {reader.line_num}: face_id is {own:g}, and {face:g} before: the table is of "
                        f"several faces and does not say whose peak is meant; {ONE_FACE}",
                        path,
                    )
                face = own
                total = sum(_number(cells, header, at) for at in intensities)
                strength = total if math.isfinite(total) else None
            yield reader.line_num, int(frame), strength
    except UnicodeDecodeError as error:
        raise DescriptionError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8, or run OpenFace again", path
        ) from error
    except (csv.Error, ValueError) as error:
        raise DescriptionError(f"{path}, line {reader.line_num}: {error}; run OpenFace again", path) from error


def _number(cells: list[str], header: list[str], at: int) -> float:
    if _NOT_A_NUMBER.fullmatch(cells[at]):
        return math.nan
    try:
        return float(cells[at])
    except ValueError:
        raise ValueError(f"{header[at]} is {cells[at]!r}, not a number") from None
