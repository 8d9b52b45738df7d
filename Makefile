# Two commands do all the set-up: `make demo` and `make test`. Both work on a machine that has only Python >= 3.10
# with pip, as root or not, in any order. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The interpreter the virtual environment is made from.
PYTHON ?= python3
# One version everywhere, so that two machines read the lock in the same way.
UV_VERSION := 0.13.9
UV := .uv/$(UV_VERSION)/bin/uv
BIN := .venv/bin

# uv would otherwise fetch an interpreter of its own from a host that is no package registry.
export UV_PYTHON_DOWNLOADS := never
# 4,000 files of CUDA libraries come over slow links too.
export UV_HTTP_TIMEOUT ?= 300
# pip warns root of installing into the system; it installs into .uv here.
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help setup data demo test lint audit format bench docs lock clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '%-8s %s\n' "$$name" "$$what"; done

setup: .venv/installed  ## make .venv with the locked packages

# The stamp is written last: an interrupted set-up starts over, a finished one costs nothing.
.venv/installed: requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is missing or older than 3.10; give another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@# --target needs neither root nor ensurepip, and a system Python that forbids `pip install` (PEP 668) allows it.
	@[ -x $(UV) ] || $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv/$(UV_VERSION) uv==$(UV_VERSION) || { echo "error: $(PYTHON) -m pip could not install uv; pip must be there (Debian: apt-get install python3-pip) and must reach a package registry" >&2; exit 2; }
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --clear --python "$$(command -v $(PYTHON))" .venv
	@# Compiled once here: where Python may not write bytecode (a shared environment, PYTHONDONTWRITEBYTECODE), every
	@# process would compile torch anew, 30 s each.
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@# An operator, since a torchvision built for another torch may import and only then fail.
	@$(BIN)/python -c 'import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5); print("torch", torch.__version__, "torchvision", torchvision.__version__)' || { echo "error: torch and torchvision do not work together; remove .venv and run the command again" >&2; exit 1; }
	@touch $@

data: setup  ## find or fetch real Fashion-MNIST and WordNet
	$(BIN)/python -m jobs.fetch_data fashion-mnist wordnet

demo: setup  ## the whole chain on the embedded generator: runs/demo/report.html
	$(BIN)/python -m jobs.fetch_data fashion-mnist
	$(BIN)/python -m jobs.demo

test: data  ## the tests, CPU only, two files at a time
	@# A worker that crashes ends the run with its test's name; restarting it under loadscope would wait for ever.
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder --max-worker-restart 0

lint: setup  ## ruff, mypy and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline jobs tune
	$(BIN)/hadolint Dockerfile

audit: setup  ## look the locked packages up among known vulnerabilities
	$(BIN)/python -m tests.dependency_audit

format: setup  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: data  ## the benchmarks, each beside its peer
	$(BIN)/python -m jobs.bench generate --preset fashion

docs: setup  ## check that the documentation is true: every command in it is known and runs
	$(BIN)/python -m pytest -q tests/test_docs.py

lock: setup  ## resolve pyproject.toml again into requirements.lock
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock  (it names no index: where packages come from is a setting of each machine)' -o requirements.lock

clean:  ## remove the environment and caches; runs/ and fetched data stay
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
