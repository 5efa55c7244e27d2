# Needs Python >= 3.10 and make; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
FLOOR ?= .venv-floor
DEMO_OUT ?= runs/demo

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-floor test-peft check docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --resume: a second call keeps the runs that are finished, and goes on where Ctrl-C stopped.
demo: $(VENV)/.demo ## fine-tune a small transformer on real text with C3A, HyDRA, LoRA and the head alone
	$(BIN)/structune compare recipes/movie-sentences.yaml --methods c3a,hydra-low-rank,lora,head --out $(DEMO_OUT) --resume

# The tests use no network: the hub is switched off, and one thread per process keeps two processes on two cores.
test test-floor: export HF_HUB_OFFLINE = 1
test test-floor: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev $(VENV)/timm ## run the tests
	$(BIN)/python -m pytest -n 2

test-floor: $(FLOOR)/.dev ## run the tests with the oldest versions that pyproject.toml allows
	$(FLOOR)/bin/python -m pytest -n 2

# A machine's own torch is used, and what is missing beside it is installed into .venv-gpu: see tests/gpu/environment.py.
test-gpu: ## run the conformance suite and the adapters' tests on CUDA; writes runs/test-gpu.json
	@PYTHONPATH=tests:$$PYTHONPATH $(PYTHON) -m gpu

bench-gpu: ## measure layers of 768 to 8192 on CUDA, beside LoRA and PEFT's C3A; writes benchmarks/results
	@PYTHONPATH=tests:$$PYTHONPATH $(PYTHON) -m gpu.bench

test-peft: $(VENV)/.dev ## run PEFT's own tests on our method (fetches PEFT's source distribution)
	PYTHONPATH=tests $(BIN)/python -m peft_suite

check: $(VENV)/.dev ## lint, formatting, types, import direction, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_direction.py
	$(BIN)/mkdocs build --quiet --strict

docs: $(VENV)/.dev ## serve the documentation on this machine
	$(BIN)/mkdocs serve

clean: ## remove what the other targets made, except runs
	rm -rf $(VENV) $(FLOOR) site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of extras: installed again only when the requirements change.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing structune[$*] into $(VENV) (minutes the first time) ..."
	$(INSTALL) -e '.[$*]'
	@touch $@

$(FLOOR)/.dev: pyproject.toml constraints-floor.txt
	@$(PYTHON) -m venv $(FLOOR)
	@echo "Installing the oldest versions into $(FLOOR) (minutes the first time) ..."
	$(FLOOR)/bin/python -m pip install --quiet -c constraints-floor.txt -e '.[dev]'
	@touch $@

# timm needs torchvision, whose wheels on PyPI do not load beside a CPU build of torch and break transformers there.
# The two get a folder of their own, into which only the test of timm's example looks.
$(VENV)/timm: constraints.txt | $(VENV)/.dev
	$(INSTALL) --no-deps --upgrade --target $@ timm torchvision
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "structune needs Python >= 3.10: set PYTHON, for instance: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
