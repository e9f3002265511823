"""What a store says of itself for readers that cannot list folders: the manifests, and the list of keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featurestore.errors import StoreError
from featurestore.quality.findings import Finding, Findings
from featurestore.quality.tree import set_aside
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.manifest import check_manifest, read_catalog, write_catalog

ADVICE = "no local reader needs it; repair writes it anew"


def check_published(root: Path, feature_sets: Sequence[FeatureSet], repair: bool, findings: Findings) -> None:
    """Whether each is what was written.  One that is older than the last commit is no fault."""
    for feature_set in feature_sets:
        layout = feature_set.layout
        try:
            check_manifest(layout)
        except FileNotFoundError:
            continue
        except OSError as error:
            finding = findings.add("manifest", layout.manifest, _why(error, layout.manifest), advice=ADVICE)
            if repair:
                aside = set_aside(feature_set, layout.manifest)
                feature_set.publish()
                _repaired(finding, aside)
    try:
        read_catalog(root)
    except FileNotFoundError:
        return
    except OSError as error:
        path = root / ".fstore" / "catalog.json"
        finding = findings.add("manifest", path, _why(error, path), advice=ADVICE)
        if repair and feature_sets:
            aside = set_aside(feature_sets[0], path)
            write_catalog(root, feature_sets[0].layout.housekeeping / "tmp")
            _repaired(finding, aside)


def _repaired(finding: Finding, aside: Path) -> None:
    finding.repaired, finding.outcome = True, f"written anew; what was there is {aside}"


def _why(error: OSError, path: Path) -> str:
    return (
        error.problem.removeprefix(f"{path} ") if isinstance(error, StoreError) else f"cannot be read: {error.strerror}"
    )
