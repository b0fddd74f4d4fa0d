# One folder, .venv, holds everything that is installed; `make clean` removes it.
#   make generate   three songs into generated/ with the bundled model; needs no PyTorch
#   make test       lint and the quick tests, on up to four cores
# PyTorch's CPU build on Linux (the plain one brings gigabytes of CUDA libraries):
#   make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
FUZZ_ARGS ?=
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

.PHONY: help generate test lint types walkthrough slow fuzz clean

help:
	@sed -n '2,3s/^#   //p' Makefile

generate: $(VENV)/players
	@echo 'python generate.py -o generated -n 3'
	@$(BIN)/python generate.py -o generated -n 3

# The tests of a file stay together: they share a browser, a notebook's run or a server of forks.
test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/developers
	$(BIN)/ruff check .
	$(BIN)/mypy

# Every command of the README, typed in a copy of the repository: less than ten minutes.
walkthrough: $(VENV)/developers
	$(BIN)/python tests/walkthrough.py

# Checks that take minutes: the whole chain on the corpora beside the repository.
slow: $(VENV)/developers
	$(BIN)/python -m pytest -m slow -s

# Some 20,000 damaged MIDI and token files through everything that reads them: up to 20 minutes.
fuzz: $(VENV)/developers
	PYTHONPATH=. $(BIN)/python tests/fuzz.py $(FUZZ_ARGS)

$(VENV)/players: requirements-play.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements-play.txt
	@touch $@

$(VENV)/developers: $(VENV)/players requirements.txt requirements-hub.txt requirements-tensorboard.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV)
