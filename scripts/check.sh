#!/bin/sh
# Lint, form, types, and the lowest Python of what runs in old environments.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check --quiet .
.venv/bin/python -m mypy
.venv/bin/vermin --target=3.8- --no-tips --quiet featurestore/storage/reader.py scripts/reader_package tests/stand_ins
