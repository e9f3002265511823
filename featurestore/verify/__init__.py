"""What is wrong with a store, and what to do about it.  `fstore verify` prints it."""

from __future__ import annotations

from featurestore.verify.checking import Report, verify
from featurestore.verify.findings import KINDS, Finding

__all__ = ["KINDS", "Finding", "Report", "verify"]
