# Few targets, each of which sets up whatever it needs. `make help` lists them.

PORT ?= 8000
VENV ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
RUNTIME := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DATA ?= fashion-mnist
RUN ?= runs/$(DATA)
KIMG ?= 30

.PHONY: help serve test lint bench train
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve: $(VENV)/.$(RUNTIME)  ## serve the shipped model on 127.0.0.1:8000 (PORT= changes it)
	$(BIN)/genserve serve --port $(PORT)

test: $(VENV)/.dev .tools/.packages .tools/torch-fidelity  ## install what the tests need, and run them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope  # two processes; threads of theirs would spin

lint: $(VENV)/.dev  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict bench
	MYPYPATH=helm/dashboards $(BIN)/mypy --strict helm/get_helm.py helm/dashboards/generate.py
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## the limit, and served images/s as ratios to it
	$(BIN)/python -m bench.serving

train: $(VENV)/.dev  ## train a generator: DATA=fashion-mnist KIMG=30 RUN=runs/fashion-mnist
	$(BIN)/genserve train $(DATA) --kimg $(KIMG) --run-dir $(RUN)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'genserve needs Python 3.11 or later'; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo 'Mend: apt-get install python3-venv'; exit 1; }

$(VENV)/.cpu $(VENV)/.gpu: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[$*]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[$(RUNTIME),train,dev]'
	@touch $@ $(VENV)/.$(RUNTIME)

# What the Inception network is compared with. It wants torchvision, which the one module that is loaded never uses.
.tools/torch-fidelity: | $(VENV)/bin/python
	$(PIP) install --no-deps --target $@ 'torch-fidelity==0.4.0' || \
		echo 'could not install torch-fidelity: the comparison with it will be skipped'

# Debian's packages that the tests use, where apt-get is there; tests that miss one say so and skip.
DEBIAN := redis-server prometheus dataset-fashion-mnist
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)
.tools/.packages:
	@mkdir -p .tools
	@if command -v apt-get >/dev/null; then dpkg -s $(DEBIAN) >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $(DEBIAN); } || \
		echo 'could not install $(DEBIAN): the tests that need them will be skipped'; fi
	@touch $@
