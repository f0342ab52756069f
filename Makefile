# Everything runs in .venv, which each target sets up itself from requirements.lock.
PROFILE ?= standard
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce survey test test-fast test-qlib lint fuzz asv asv-history asv-compare asv-versions asv-publish clean help

help:
	@echo "make install   .venv with all that is needed; every target does this first"
	@echo "make reproduce [PROFILE=smoke|standard|paper]  the paper's tables, figures and claims"
	@echo "make survey [PROFILE=smoke|standard|paper]     today's layers, batches, real problems"
	@echo "make test      run all tests, two at a time"
	@echo "make test-fast the tests that take less than ten seconds each"
	@echo "make test-qlib the tests that need Qlib, in an environment of their own"
	@echo "make fuzz [N=2000] [SOLVERS=active-set/direct,...|all] [SEED=0] [JOBS=1]  difficult problems"
	@echo "make lint      ruff (lint and format), mypy, import-linter"
	@echo "make asv       asv benchmarks of this checkout; asv-history, asv-compare,"
	@echo "               asv-versions, asv-publish"
	@echo "make clean     remove the environment and what was built"

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "bpqp_bench needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# --no-deps: the lock is complete, and qpth's metadata would otherwise forbid NumPy 2.
	# Compiled afterwards, on all cores: pip takes one, for two of three minutes. Some files are for
	# other versions of Python and cannot be compiled.
	$(BIN)/pip install --quiet --no-deps --no-compile -r requirements.lock
	$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Compiled once here; otherwise every process that comes first would do it, at the same time, and
# within the limit on a worker's start.
.venv/.kernels: .venv/.ready $(wildcard bpqp_bench/layers/primal_dual/*.py)
	# Numba sees that a file has changed, but not one that it imports from.
	rm -f bpqp_bench/layers/primal_dual/__pycache__/*.nb[ic]
	OMP_NUM_THREADS=1 $(BIN)/python -c 'from bpqp_bench import Registry; Registry().method("bpqp").cls.load()'
	touch $@

install: .venv/.kernels

reproduce: .venv/.kernels
	$(BIN)/bpqp-bench reproduce --profile $(PROFILE)

survey: .venv/.kernels
	$(BIN)/bpqp-bench survey --profile $(PROFILE)

# Two files at a time: the fixtures of a file are costly, and made once where it stays whole.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/.kernels
	OMP_NUM_THREADS=1 $(PYTEST)

test-fast: .venv/.kernels
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow"

# Qlib brings 1.4 GB of its own, so it has an environment of its own, which reads .venv's besides.
.venv-qlib/.ready: .venv/.ready requirements-qlib.lock
	test -x .venv-qlib/bin/python || $(PYTHON) -m venv .venv-qlib
	SITE='import sysconfig; print(sysconfig.get_paths()["purelib"])'; \
	$(BIN)/python -c "$$SITE" > "$$(.venv-qlib/bin/python -c "$$SITE")/of_main_environment.pth"
	.venv-qlib/bin/pip install --quiet --no-deps --no-compile -r requirements-qlib.lock
	touch $@

test-qlib: .venv-qlib/.ready
	PYTHONPATH=$(CURDIR) .venv-qlib/bin/python -m pytest tests/tasks/test_portfolio_qlib.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Outcomes by kind of problem and solvers; docs/robustness.md has those of a long run.
N ?= 2000
SOLVERS ?= active-set/direct
SEED ?= 0
JOBS ?= 1

fuzz: .venv/.kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --problems $(N) --solvers $(SOLVERS) --seed $(SEED) --jobs $(JOBS)

# asv measures this checkout in .venv; the history builds an environment per commit.
ASV_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 JAX_ENABLE_X64=1 JAX_PLATFORMS=cpu
RANGE ?= HEAD^!
BASE ?= HEAD~1
HEAD ?= HEAD
# A regular expression narrows the benchmarks: BENCH="Backward.*'bpqp-direct'"
BENCH ?= .

asv: .venv/.ready
	$(BIN)/asv machine --yes
	$(ASV_ENV) $(BIN)/asv run --quick --show-stderr --bench "$(BENCH)" --environment existing:$(CURDIR)/$(BIN)/python \
		--set-commit-hash $$(git rev-parse HEAD)

asv-history: .venv/.ready
	$(BIN)/asv machine --yes
	$(BIN)/asv run --show-stderr --skip-existing-successful --bench "$(BENCH)" $(RANGE)

asv-compare: .venv/.ready
	$(BIN)/asv machine --yes
	$(BIN)/asv continuous --split --bench "$(BENCH)" $(BASE) $(HEAD)

asv-versions: .venv/.ready
	$(BIN)/asv --config asv.versions.conf.json machine --yes
	$(BIN)/asv --config asv.versions.conf.json run --quick --show-stderr --bench "$(BENCH)" $(RANGE)
	$(BIN)/asv --config asv.versions.conf.json publish

asv-publish: .venv/.ready
	$(BIN)/asv publish
	# asv's page loads its libraries from the internet; OFFLINE=1 puts them into the site.
	$(if $(OFFLINE),$(BIN)/python benchmarks/offline_site.py .asv/html)

clean:
	rm -rf .venv .venv-qlib build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .asv
