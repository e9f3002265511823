"""Write what benchmarks/rounding.py measured into docs/numbers.md and docs/hybrid_run.md.

    .venv/bin/python scripts/write_numbers.py

tests/test_numbers.py fails while the pages say anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs" / "numbers.md", ROOT / "docs" / "hybrid_run.md")
RESULT = ROOT / "benchmarks" / "results" / "rounding.json"
DEPTHS = (2, 12, 24, 48)
BLOCK = re.compile(r"(<!-- written: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str, result: Mapping[str, Any]) -> str:
    """The page with these figures."""
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match['name']](result)}\n{match[3]}", page)


def of_dtype(result: Mapping[str, Any], dtype: str) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if row["dtype"] == dtype]


def largest(result: Mapping[str, Any], dtype: str, name: str = "all") -> Mapping[str, Any]:
    """The row in which this is largest."""
    return max(of_dtype(result, dtype), key=lambda row: row[name])


def bounds(result: Mapping[str, Any]) -> str:
    rows = []
    for dtype, said in result["allowed"].items():
        per_root = said["margin"] * said["spread"] * said["unit"]
        most = largest(result, dtype, "units a block")
        rows.append(
            [dtype, f"{said['unit']:.2g}", f"{said['spread']:g}", f"{said['margin']:g}", f"{most['units a block']:.2g}",
             *(f"{per_root * (blocks + 2) ** 0.5:.2g}" for blocks in DEPTHS)]
        )  # fmt: skip
    head = ["computed in", "unit", "spread", "margin", "largest spread measured"]
    return table([*head, *(f"{n} blocks" for n in DEPTHS)], rows)


def measured(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    lacking = f" This processor lacks {', '.join(result['lacking'])}." if result["lacking"] else ""
    for setting, what in result.get("refused", {}).items():
        lacking += f" With {setting} torch itself refuses {', '.join(what)} on this processor."
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "open_clip_torch", "transformers"))
    exact, alone = largest(result, "float32"), largest(result, "float32", "one process")
    intro = (
        f"On {machine['cpu']} with {versions}, in batches of 1 to 32 with each row at several places, with 1, 2 "
        f"and 4 threads, and in processes of their own with {', '.join(result['settings'][1:])}.{lacking} The largest "
        f"difference of a value, relative to the largest of its row, between any two of those ways was "
        f"{exact['all']:.2g} in float32 ({exact['network']}); in one process alone it was at most "
        f"{alone['one process']:.2g}."
    )
    rows = [
        [row["network"], row["dtype"], row["blocks"], f"{row['one process']:.2g}", f"{row['all']:.2g}",
         f"{row['allowed']:.2g}", f"{row['allowed by all']:.3g}" if row["allowed by all"] else "",
         f"{row['off float32']:.2g}"]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["network", "computed in", "blocks", "one process", "all ways", "bound", "bound by all ways", "off float32"]
    return f"{intro}\n\n{table(head, rows)}"


def wrong(result: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["wrong"]))
    parts = []
    for dtype in result["allowed"]:
        rows = [row for row in of_dtype(result, dtype) if row["nearest"]]
        nearest = min(rows, key=lambda row: row["nearest by allowed"])
        said = (
            f"**{dtype}**: the nearest mistake is {nearest['nearest']} ({nearest['network']}), at "
            f"{nearest['nearest by allowed']:.3g} times the bound."
        )
        cells = []
        for name in names:
            found = [(row["wrong"][name], row["wrong"][name] / row["allowed"]) for row in rows if name in row["wrong"]]
            cells.append([name, f"{min(found)[0]:.2g}", f"{min(ratio for _, ratio in found):.3g}", str(len(found))])
        parts.append(f"{said}\n\n{table(['mistake', 'least distance', 'x bound', 'networks'], cells)}")
    return "\n\n".join(parts)


def live(result: Mapping[str, Any]) -> str:
    exact = largest(result, "float32")
    return (
        "A live feature and a stored one are made by the same code. They are the same numbers up to rounding: batches "
        "of another size, other threads or other instructions of the processor moved no value by more than "
        f"{exact['all']:.2g} of the largest in float32, and [Numbers](numbers.md) says what is allowed."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


BLOCKS = {"bounds": bounds, "measured": measured, "wrong": wrong, "live": live}


def main() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    for path in PAGES:
        path.write_text(rendered(path.read_text(encoding="utf-8"), result), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
