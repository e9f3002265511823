#!/bin/sh
# The tests in three parts: what can share the machine, what cannot, and the torture tests.
set -eu
cd "$(dirname "$0")/.."

# Encoders and BLAS would otherwise start one thread per core in every test process.
export OMP_NUM_THREADS=1

part() {
    status=0
    .venv/bin/python -m pytest "$@" || status=$?
    # 5: nothing was collected, e.g. a checkout without tests of that kind.
    [ "$status" -eq 0 ] || [ "$status" -eq 5 ] || exit "$status"
}

part tests --ignore tests/torture -m "not serial" -n 2
part tests --ignore tests/torture -m serial
# By file: tests of one file share a store or a warm parent.  A loaded machine may need minutes for one of them.
part tests/torture -n 2 --dist loadfile --timeout 900
