# The two commands of the README are `make up` and `make test`. Everything lives in $(VENV); nothing else is touched.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
VENV ?= .venv
# One more than there are cores, since many tests wait.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGE := pyproject.toml
IMAGE_TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes \
	--fork-strategy fewest --no-emit-index-url --no-emit-find-links --no-emit-package matyan-tracker \
	--no-annotate --custom-compile-command "make lock" --quiet

# Libraries are compiled by their first import, not by pip (see below): where nothing may be kept of that, every process
# would compile all that it loads, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up demo test check fix docs bench torture screenshots image lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.installed ## install what is locked into .venv and start the tracker
	@$(BIN)/matyan up $(ARGS)

demo: $(VENV)/.installed ## log a small training into a running tracker
	@$(BIN)/matyan demo $(ARGS)

test: $(VENV)/.installed-dev ## install everything and run every test
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, import layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest --quiet tests/architecture

fix: $(VENV)/.installed-dev ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev ## write the pages of docs/reference that are made from the code
	$(BIN)/python -m tests.support.reference
	MATYAN_WRITE_DOCS=1 $(BIN)/python -m pytest --quiet tests/architecture
	$(BIN)/python -m tests.architecture.test_tables

bench: $(VENV)/.installed-dev ## print this machine's figures, next to Aim's where Aim is installed
	@$(BIN)/python -m tests.bench.run $(ARGS)

torture: $(VENV)/.installed-dev ## break processes for ten minutes while clients write, then look for every item
	@$(BIN)/python -m tests.torture $(ARGS)

screenshots: $(VENV)/.installed-dev ## take the pictures of docs/images from a demo in headless Chromium
	@$(BIN)/python -m tests.bench.screenshots $(ARGS)

image: ## build the container image matyan-tracker:$(IMAGE_TAG) (needs docker)
	@command -v docker >/dev/null || { echo "no docker on the PATH: install Docker Engine, or build the Dockerfile with another builder" >&2; exit 1; }
	docker build --tag matyan-tracker:$(IMAGE_TAG) --build-arg VERSION=$(IMAGE_TAG) \
		--build-arg REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) $(ARGS) .

lock: ## resolve the dependencies anew (needs uv)
	$(LOCK) pyproject.toml --group build --extra demo --output-file requirements.lock
	$(LOCK) pyproject.toml --group build --all-extras --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --group image --extra distributed --output-file requirements-image.lock
	$(LOCK) --group image-build --output-file requirements-build.lock

clean: ## remove the environment and what tools leave behind
	rm -rf $(VENV) build-artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "matyan needs Python 3.11 or newer: install one or name it with PYTHON=" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# pip leaves compiling to the first import: of all that is installed, tests load a fifth.
$(VENV)/.installed: requirements.lock $(PACKAGE) | $(BIN)/python
	@echo "installing the locked dependencies (once)"
	@$(PIP) install --no-compile --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock requirements.lock $(PACKAGE) | $(BIN)/python
	@echo "installing the locked dependencies and the development tools (once)"
	@$(PIP) install --no-compile --require-hashes --requirement requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.installed $@
