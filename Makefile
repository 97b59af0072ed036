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
	tests/test_files.py tests/test_recipe.py tests/test_strict_yaml.py tests/test_wording.py \
	tests/data/test_eccentricity.py tests/data/test_embedded.py tests/data/test_hits.py \
	tests/data/test_long_range.py tests/data/test_refinement.py \
	tests/data/test_ring_transfer.py tests/data/test_road_network.py \
	tests/data/test_opinions.py tests/data/test_metrics.py tests/data/test_tracks.py \
	tests/data/test_trust.py tests/operator/test_schedule.py tests/init/test_activation.py \
	tests/diagnostics/test_verdicts.py tests/training/test_folder.py tests/training/test_plot.py \
	tests/training/test_trainer.py tests/speedup/test_record.py
# What a PyTorch may break.
CORE := nn operator training data hub init

.PHONY: train test test-compat test-torch test-seeds test-hub test-browser \
	test-loggers docs wheel lint hashes benchmark torture clean

train: .venv/installed
	$(BIN)/dgl-deepgnn train resgcn64.digits
	$(BIN)/dgl-deepgnn speedup resgcn64.digits

test: .venv/installed
	$(BIN)/python -m pytest -n 2 -p tests.row
	$(BIN)/python -m pytest -q -n 2 -p tests.without_dgl $(WITHOUT_DGL)

# Is it never red by chance? Other numbers and another order each time, of all tests or of TESTS.
SEEDS ?= 20
test-seeds: .venv/installed
	for seed in $$(seq $(SEEDS)); do $(BIN)/python -m pytest -q -n 2 -p randomly \
		--randomly-seed=$$seed --hypothesis-seed=$$seed $(TESTS) || exit; done

# The whole suite on Python 3.12, beside DGL 2.1; on 3.13, for which there is no DGL, what works
# without it. Downloads gigabytes; wants python3.12 and python3.13. The last line of each run, and of
# the next target's, is its row of the table in docs/install.md.
test-compat:
	python3.12 -m venv build/py312
	build/py312/bin/pip install --quiet -c constraints.txt -e '.[test]'
	build/py312/bin/python -m pytest -p tests.row
	python3.13 -m venv build/py313
	build/py313/bin/pip install --quiet -c constraints.txt -e '.[test]'
	build/py313/bin/python -m pytest -p tests.row $(WITHOUT_DGL)

# The core of the suite beside another PyTorch, and the newest of everything else that it allows:
# make test-torch PYTHON=python3.12 TORCH='torch==2.2.1 numpy<2'
TORCH ?= torch
test-torch:
	$(PYTHON) -m venv --clear build/torch
	build/torch/bin/pip install --quiet $(foreach it,$(TORCH),'$(it)') -e '.[test]'
	build/torch/bin/python -m pytest -p tests.row $(foreach it,$(CORE),tests/$(it))

# Models read from a server of the Hugging Face Hub's API that others wrote.
test-hub: .venv/installed
	$(PYTHON) -m venv build/olah
	build/olah/bin/pip install --quiet olah==0.5.4 huggingface_hub==2.4.0
	OLAH=$(CURDIR)/build/olah/bin/olah-cli $(BIN)/python -m pytest tests/hub/test_olah.py

# The pages of the zoo, clicked in a browser: apt-get install chromium chromium-driver
test-browser: .venv/installed
	$(BIN)/pip install --quiet selenium
	$(BIN)/python -m pytest tests/hub/test_page.py

# Loggers that are not installed by default, each offline; they bring many packages.
test-loggers:
	$(PYTHON) -m venv build/loggers
	build/loggers/bin/pip install --quiet -c constraints.txt -e '.[test,wandb,mlflow,trackio]'
	build/loggers/bin/python -m pytest tests/training/test_loggers.py

# The documentation as a site, build/site; a warning is an error.
docs: .venv/installed
	$(BIN)/python docs/site.py build/site-source
	$(BIN)/zensical build --strict

# What is released: built, checked, tried in an environment of its own; build/release has it, with a
# list of everything in the environment that built it (SBOM, CycloneDX).
wheel: .venv/installed
	rm -rf build/release
	$(BIN)/python -m build --quiet --outdir build/release .
	$(BIN)/twine check --strict build/release/*
	$(BIN)/python -m tests.wheel build/release/*.whl
	$(BIN)/cyclonedx-py environment --output-reproducible -o build/release/sbom.json .venv

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What the package index serves is what was pinned: hashes.txt, written by `python -m tests.hashes`.
hashes: .venv/installed
	$(BIN)/pip download --quiet --no-deps --require-hashes -r hashes.txt -d build/downloads

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Wants the machine for itself; benchmarks/README.md says how long it takes.
benchmark: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[benchmark]'
	$(BIN)/python -m benchmarks.cost

# Kills, damaged files, fuzzing; about an hour on two cores. docs/reliability.md has its table.
torture: .venv/installed
	$(BIN)/python -m tests.faults.torture --write

clean:
	rm -rf .venv
