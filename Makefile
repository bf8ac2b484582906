# Two commands matter: `make lab` and `make test`. Each prepares what it needs and explains itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where `make bench` leaves results and a report.
BENCH ?= reports/bench
# Most tests wait more than they compute: two at once take little more than half the time, on two cores too.
AT_ONCE ?= 2

.PHONY: help lab test bench skew lint reference format lock setup kube native containerd containerd2 clean venv-module browser \
  jupyter binder wheels trywheels

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

lab: kube containerd ## Run the whole lab: execute the notebooks into reports/
	$(BIN)/wasmlab lab --out reports $(ARGS)

test: kube containerd containerd2 browser ## Run every test
	@base=$$(mktemp -d "$${TMPDIR:-/tmp}/wl.XXXXXX") && $(BIN)/python -m pytest --basetemp "$$base/t" \
	  -n $(AT_ONCE) --dist loadscope --no-loadscope-reorder $(ARGS) && rm -rf --one-file-system "$$base"

jupyter: kube ## JupyterLab with the notebooks, the live board and a terminal; Ctrl-C ends it
	@$(BIN)/wasmlab jupyter $(ARGS)

bench: kube containerd containerd2 ## Measure every figure that the README shows (14 minutes, without root 5)
	@$(BIN)/python -m wasmlab.engines.native_build --if-possible >/dev/null
	$(BIN)/wasmlab bench figures --out $(BENCH) $(ARGS)
	$(BIN)/wasmlab bench record --out $(BENCH)
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m wasmlab.bench.record_paths $(BENCH); fi
	$(BIN)/wasmlab bench report $(BENCH)

skew: kube ## By hand: build the Kubernetes release before ours (10 minutes), and try the node under it
	$(BIN)/python -m tests.skew.programs
	WASMLAB_SKEW=1 $(BIN)/python -m pytest tests/skew $(ARGS)

lint: setup ## Check style, types and who imports whom
	$(BIN)/ruff check wasmlab tests
	$(BIN)/ruff format --check wasmlab tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

reference: setup ## Write docs/reference and the picture from docstrings, parsers and tables
	$(BIN)/python -m wasmlab.reference

format: setup ## Format the code
	$(BIN)/ruff check --fix wasmlab tests
	$(BIN)/ruff format wasmlab tests

setup: $(READY) ## Create the virtual environment from the hashed lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "wasmlab needs Python 3.11 or newer; $(PYTHON) says: $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory venv-module
	@echo "Preparing the Python environment in $(VENV) (two to four minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock \
	  | grep --line-buffered -E '^(Collecting|Installing|Successfully|ERROR)' | cut -c1-100; exit $${PIPESTATUS[0]}
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

# Debian keeps the part of the standard library that makes virtual environments in a package of its own.
venv-module:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "This Python cannot make virtual environments; installing python3-venv"; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -y -q install python3-venv; \
	  $(PYTHON) -c 'import ensurepip, venv'; \
	else \
	  echo "$(PYTHON) cannot make virtual environments. Try: apt-get install python3-venv (as root), or" \
	    "make PYTHON=another-python3" >&2; exit 1; \
	fi

kube: $(READY) ## Build the control plane (once, about 8 minutes; later a look into the cache)
	@$(BIN)/python -m wasmlab.cluster.binary >/dev/null
	@$(BIN)/python -m wasmlab.engines.wasmtime_runner >/dev/null

native: $(READY) ## Build the native wasmer binding (needs Rust; once, about 10 minutes)
	@$(BIN)/python -m wasmlab.engines.native_build >/dev/null

containerd: $(READY) ## As root on Debian: install what path 2 needs; elsewhere say what is skipped
	@$(BIN)/python -m wasmlab.containerd.install

# The second containerd is a test peer and a bench arm. Where path 2 cannot run at all it is not needed.
containerd2: $(READY)
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m wasmlab.containerd.build >/dev/null; fi

# For the browser's tests. Where it cannot be installed they are skipped, by name.
browser: $(READY)
	@if ! { { command -v chromium || command -v google-chrome; } && ldconfig -p | grep libatomic.so.1; } >/dev/null 2>&1 && \
	  [ "$$(id -u)" = 0 ] && [ -z "$$WASMLAB_NO_INSTALL" ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the browser's tests"; \
	  install="apt-get -y -q -o DPkg::Lock::Timeout=120 --no-install-recommends install chromium fonts-dejavu-core libatomic1"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { $$install || { apt-get -q update && $$install; }; } >/dev/null || echo "the browser's tests will be skipped" >&2; \
	fi

binder: $(READY) ## As root: prove that the lab fits into a Binder session (about 15 minutes)
	$(BIN)/python -m tests.binder.session $(ARGS)

wheels: $(READY) ## Build the release's wheels into dist/ from the cached programs
	$(BIN)/python -m wasmlab.release --out dist $(ARGS)

trywheels: $(READY) ## Install those wheels where there is no compiler, and run a lab from them
	$(BIN)/python -m tests.release.installed dist

lock: setup ## Resolve the dependencies again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --extra dev \
	  --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml -o requirements.lock

clean: ## Remove what this checkout made (the shared cache stays)
	rm -rf $(VENV) reports build *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
