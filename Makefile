# Every target that needs packages sets them up first, in .venv; python3 and make are enough to start.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check torture portability bench reader clean

PYTHON := .venv/bin/python
# Encoders and BLAS would otherwise each start one thread per core in every test process.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest

help:     ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/: [a-z ]*##/\t/' | expand -t 12

setup:    ## install the pinned packages into .venv (the other targets do this by themselves)
	@sh scripts/setup.sh

demo: setup   ## make a small dataset, extract it twice, verify it, run inference on it, show times
	@$(PYTHON) scripts/demo.py

test: setup   ## all tests within about ten minutes, torture tests in their short version
	@sh scripts/test.sh

check: setup  ## lint and types
	@sh scripts/check.sh

torture: setup  ## the torture tests in their long version (hours; ARGS=--resume goes on), and docs/reliability.md
	$(PYTEST) tests/torture $$(grep -lE 'long_run|mark.torture' tests/test_*.py) --long --timeout 0 -o faulthandler_timeout=0 $(ARGS); status=$$?; $(PYTHON) scripts/write_reliability.py && exit $$status

portability: setup  ## tests as on other machines: orders, locales, clocks, processors, Pythons; an hour; ARGS="in-1981"
	@$(PYTHON) scripts/portability.py $(ARGS)

bench: setup  ## every benchmark and docs/benchmarks.md, half an hour; ARGS=--quick: three minutes
	@$(PYTHON) benchmarks/run.py $(ARGS)

reader: setup  ## dist/featurestore_reader-*.whl, which reads stores where this package cannot be installed
	@sh scripts/build_reader.sh $(PYTHON) dist

clean:    ## remove what make has made, .venv included
	rm -rf .venv .portability demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
