# `make demo` and `make test` do all of their own set-up, once: a virtual environment in .venv with the versions of constraints.txt.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUNS := $(or $(RAYPATH_RUNS),runs)

.PHONY: demo test lint ui clean setup

demo: $(READY)  ## slides to a verdict on two cores in a few minutes
	$(VENV)/bin/python experiments/demo.py

test: $(READY) lint  ## everything that has to hold
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports --no-cache

ui: $(READY)  ## the runs in a browser
	@echo "runs: http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
	MLFLOW_DISABLE_TELEMETRY=true $(VENV)/bin/mlflow ui --backend-store-uri sqlite:///$(abspath $(RUNS))/mlflow.db --host 127.0.0.1 --port 5000

setup: $(READY)  ## the environment alone

$(READY): pyproject.toml constraints.txt setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" ./setup.sh
	@touch $@

clean:  ## remove the environment and everything the demo made
	rm -rf $(VENV) $(RUNS)/demo* .pytest_cache .ruff_cache
