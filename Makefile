# Branch Lab's commands. `make` lists them; `make lab` is the one to start with.
#
#   make lab                    set up once, then open JupyterLab on the first notebook
#   make lab ARGS=--no-browser  pass options on to JupyterLab
#   make lab TORCH=cpu          take PyTorch's CPU wheels (Linux: several GB less than with CUDA)
#   make lab WHEELS=folder      install offline, from a folder of wheels
#   make lab PYTHON=python3.12  use this Python for the environment
#   make gpu PYTHON=python3     measure on an NVIDIA GPU, with what this Python has; WHEELS=folder adds to it
#   make gpu DRY=1              the same steps, small and on the CPU
#   make site FAST=1            the site from short runs of the notebooks, as the tests run them

PYTHON ?= python3
TORCH  ?=
WHEELS ?=
ARGS   ?=
FAST   ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(if $(WHEELS),--no-index --find-links $(WHEELS))

TORCH_PIN := $(shell grep '^torch==' constraints.txt)
SETTINGS  := $(VENV)/share/jupyter/lab/settings
TEMPLATES := $(VENV)/share/jupyter/nbconvert/templates
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
BROWSER   := $(wildcard tests/browser/test_*.py)
# In a container one often is root, which JupyterLab refuses unless told.
AS_ROOT   := $(if $(filter 0,$(shell id -u)),--allow-root)

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help lab test setup lint unit nbval browser gpu site strip bench soak picture dist clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(VENV)/lab.stamp  ## set up once, then open JupyterLab on the first notebook
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(AS_ROOT) $(ARGS)

test: lint unit nbval browser  ## everything that must pass: lint, unit, nbval and browser

setup: $(VENV)/test.stamp  ## only set up, with what the tests need

lint: $(VENV)/test.stamp  ## ruff (notebooks too) and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict kit

# Two runs share two cores here. OpenMP's threads would spin while they wait, and take the cores from the other run.
unit nbval browser: export OMP_WAIT_POLICY := passive

unit: $(VENV)/test.stamp  ## the tests that need no browser
	$(BIN)/pytest --numprocesses=2 --dist=worksteal --ignore=tests/browser tests

nbval: $(VENV)/test.stamp  ## run every notebook, short version
ifneq ($(NOTEBOOKS),)
	KIT_FAST=1 $(BIN)/pytest --numprocesses=2 --dist=loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=120 $(NOTEBOOKS)
else
	@echo "nbval: there are no notebooks"
endif

browser: $(VENV)/test.stamp  ## the tests in Chromium; screenshots go to build/
ifneq ($(BROWSER),)
	KIT_FAST=1 $(BIN)/pytest --numprocesses=2 --dist=loadfile tests/browser
else
	@echo "browser: there are no browser tests"
endif

# On a server: with the torch that is there, and without the packages of the lab. A folder of wheels has what the server
# lacks, as msgspec and cloudpickle; they are unpacked beside the results and not installed.
CARRIED := build/gpu-wheels
gpu: export PYTHONPATH := $(if $(WHEELS),$(CURDIR)/$(CARRIED):)$(PYTHONPATH)

gpu:  ## tests, comparisons and traces on an NVIDIA GPU, to build/gpu in nine minutes
ifneq ($(WHEELS),)
	rm -rf $(CARRIED)
	for wheel in $(WHEELS)/*.whl; do $(PYTHON) -m zipfile -e "$$wheel" $(CARRIED) || exit 1; done
endif
	$(PYTHON) -m bench.gpu $(if $(DRY),--dry) $(ARGS)

site: $(VENV)/test.stamp  ## run every notebook in full, and write the site to site/: static pages, no server
	$(if $(FAST),KIT_FAST=1) $(BIN)/python -m tools.site site

strip: $(VENV)/lab.stamp  ## take the outputs out of the notebooks, before a commit
	$(BIN)/python tools/strip.py $(NOTEBOOKS)

bench: $(VENV)/test.stamp  ## measure the kit against plain code; writes build/bench*.json
	$(BIN)/python -m bench
	$(BIN)/python -m bench.approaches
	$(BIN)/python -m bench.continual
	$(BIN)/python -m bench.machines
	$(BIN)/python -m bench.many
	$(BIN)/python -m bench.timeline

soak: $(VENV)/test.stamp  ## full products and hundreds of cycles: processes, compilers, budgets, layers, damaged traces; an hour
	KIT_SOAK=1 $(BIN)/pytest -rP -p no:logging tests/executors tests/graphs tests/transforms tests/models tests/trace tests/bench tests/measuring/test_candidates.py tests/test_cli.py
	KIT_SOAK=1 KIT_FAST=1 $(BIN)/pytest tests/browser/test_notebooks.py
	KIT_SOAK=1 $(BIN)/pytest -rP tests/notebooks/test_cards.py

picture: $(VENV)/test.stamp  ## measure and draw docs/timeline.png, on a machine where nothing else runs
	$(BIN)/python -m tools.picture

dist: $(VENV)/dist.stamp  ## sdist and wheel to dist/, with what a package index would check
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Setting up. The stamps say which part is installed; a change of the listed files installs it again.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Branch Lab needs Python 3.11 or later, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Torch alone comes from PyTorch's own index, so that every other package comes from where pip is told to look.
$(VENV)/lab.stamp: pyproject.toml constraints.txt tools/overrides.json $(wildcard tools/nbconvert/*) | $(BIN)/python
ifneq ($(TORCH),)
	$(PIP) --no-deps --index-url https://download.pytorch.org/whl/$(TORCH) $(TORCH_PIN)
endif
	$(PIP) -e '.[lab,onnx]'
	mkdir -p $(SETTINGS) $(VENV)/etc/jupyter $(TEMPLATES)
	cp tools/overrides.json $(SETTINGS)/
	cp tools/nbconvert/config.json $(VENV)/etc/jupyter/jupyter_nbconvert_config.json
	cp -r tools/nbconvert/branch_lab $(TEMPLATES)/
	@touch $@

$(VENV)/test.stamp: $(VENV)/lab.stamp
	$(PIP) -e '.[cluster,lab,onnx,openvino,site,test]'
	@touch $@

$(VENV)/dist.stamp: $(VENV)/lab.stamp
	$(PIP) -e '.[dist]' 'setuptools>=77'
	@touch $@
