"""What several runs of pytest come to: minutes of each, the slowest tests, why tests were skipped, and all counts.

    python scripts/sum_up.py PART.xml...       as `pytest --junit-xml PART.xml` writes them

The last line is `N passed, N failed, N skipped`.  A part without its file ended before pytest could write it, and
counts as a failure.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

SLOWEST = 15


def main(parts: list[Path]) -> None:
    tests: list[tuple[float, str]] = []
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for part in parts:
        try:
            (suite,) = ElementTree.parse(part).getroot().iter("testsuite")
        except (OSError, ElementTree.ParseError):
            counts["failed"] += 1
            print(f"{part.stem}: no result; pytest was ended before it could write one")
            continue
        print(f"{part.stem}: {float(suite.attrib['time']) / 60:.1f} minutes, {suite.attrib['tests']} tests")
        for case in suite.iter("testcase"):
            outcome, reason = outcome_of(case)
            counts[outcome] += 1
            reasons.update([reason] if reason else [])
            tests.append((float(case.attrib["time"]), f"{case.attrib['classname']}::{case.attrib['name']}"))
    print(f"\nThe {SLOWEST} slowest:")
    for seconds, name in sorted(tests, reverse=True)[:SLOWEST]:
        print(f"  {seconds:6.1f} s  {name}")
    if reasons:
        print(f"\nSkipped, {counts['skipped']} in all:")
        for reason, count in reasons.most_common():
            print(f"  {count:4}  {reason}")
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


def outcome_of(case: ElementTree.Element) -> tuple[str, str]:
    """(passed, failed or skipped; why it was skipped)."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed", ""
    skipped = case.find("skipped")
    return ("passed", "") if skipped is None else ("skipped", skipped.attrib.get("message", "").partition("\n")[0])


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
