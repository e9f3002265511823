"""What is wrong with a store, and what to do about it.  `check_store` does the work, and
the command line prints what it finds; `verify` is the short form for Python."""

from __future__ import annotations

from featurestore.quality.findings import KINDS, Finding
from featurestore.quality.store_check import VerifyReport, check_store
from featurestore.quality.verification import verify

__all__ = ["KINDS", "Finding", "VerifyReport", "check_store", "verify"]
