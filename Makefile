# `make train` and `make test` do all the set-up: they need Python 3.11 or 3.12 and a package index.
PYTHON ?= python3
BIN := .venv/bin
# A busy second core makes spinning OpenMP threads far slower than sleeping ones.
export OMP_WAIT_POLICY := passive
# Matrices of this size are multiplied faster by one thread than by two.
export OMP_NUM_THREADS := 1
export DGLBACKEND := pytorch

# What runs a second time, with imports of DGL blocked.
WITHOUT_DGL := tests/test_graph.py tests/test_without_dgl.py tests/test_registry.py \
	tests/data/test_hits.py tests/data/test_metrics.py tests/operator/test_schedule.py

.PHONY: train test test-compat test-seeds lint benchmark torture clean

train: .venv/installed
	$(BIN)/dgl-deepgnn train resgcn64.digits
	$(BIN)/dgl-deepgnn speedup resgcn64.digits

test: .venv/installed
	$(BIN)/python -m pytest -n 2
	$(BIN)/python -m pytest -q -p tests.without_dgl $(WITHOUT_DGL)

# Is it never red by chance? Other numbers and another order each time, of all tests or of TESTS.
SEEDS ?= 20
test-seeds: .venv/installed
	for seed in $$(seq $(SEEDS)); do $(BIN)/python -m pytest -q -n 2 -p randomly \
		--randomly-seed=$$seed --hypothesis-seed=$$seed $(TESTS) || exit; done

# The whole suite on Python 3.12, beside DGL 2.1; on 3.13, for which there is no DGL, what works
# without it. Downloads gigabytes; wants python3.12 and python3.13.
test-compat:
	python3.12 -m venv build/py312
	build/py312/bin/pip install --quiet -c constraints.txt -e '.[test]'
	build/py312/bin/python -m pytest
	python3.13 -m venv build/py313
	build/py313/bin/pip install --quiet -c constraints.txt -e '.[test]'
	build/py313/bin/python -m pytest $(WITHOUT_DGL)

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Wants the machine for itself; benchmarks/README.md says how long it takes.
benchmark: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[benchmark]'
	$(BIN)/python -m benchmarks.cost

# Kills, damaged files, fuzzing; about half an hour on two cores. docs/reliability.md has its table.
torture: .venv/installed
	$(BIN)/python -m tests.faults.torture --write

clean:
	rm -rf .venv
