#!/bin/sh
# The tests in three parts: what can share the machine, what cannot, and the torture tests.  All three run; the exit
# code says whether one of them failed.
set -eu
cd "$(dirname "$0")/.."

# Encoders and BLAS would otherwise start one thread per core in every test process.
export OMP_NUM_THREADS=1

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
failed=0

part() {    # part NAME ARGUMENTS...
    xml=$results/$1.xml
    shift
    status=0
    .venv/bin/python -m pytest --junit-xml "$xml" "$@" || status=$?
    # 5: nothing was collected, e.g. a checkout without tests of that kind.
    [ "$status" -eq 0 ] || [ "$status" -eq 5 ] || failed=1
}

# By file: tests of one file share a store, a checkpoint or a warm parent.
part together tests --ignore tests/torture -m "not serial" -n 2 --dist loadfile
part alone tests --ignore tests/torture -m serial
# A loaded machine may need minutes for one of them.
part torture tests/torture -n 2 --dist loadfile --timeout 900

.venv/bin/python scripts/sum_up.py "$results/together.xml" "$results/alone.xml" "$results/torture.xml"
exit "$failed"
