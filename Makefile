# Set-up, serving and checks. Each command does what it needs first; a second run starts in seconds.
#
#   make serve   [MODEL=starter] [HOST=127.0.0.1] [PORT=8000] [ARGS="--max-num-seqs 32"]
#   make test    [ARGS="-k scheduler"] [WORKERS=2]
#
# PYTHON names the interpreter that .venv is made with (3.11 or newer).

PYTHON ?= python3
MODEL ?= starter
HOST ?=
PORT ?=
ARGS ?=
# Test processes side by side. A file's tests stay in one, where they share daemons; the long files come first.
WORKERS ?= 2

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
ONDOL := $(VENV_PYTHON) -m ondol
# The GPU's kernels on the CPU. Without ARGS: these choose among the tests of the main run.
INTERPRETED := TRITON_INTERPRET=1 $(VENV_PYTHON) -m pytest tests/interpreted
PIP_INSTALL := $(VENV_PYTHON) -m pip install --disable-pip-version-check -c constraints.txt
# Beside a torch for CPUs the tests run the oldest Triton that the kernels are for. A CUDA build of torch has brought
# its own, and admits no other.
TRITON := triton==3.6.0; sys_platform == "linux"
HAS_TRITON := $(VENV_PYTHON) -c 'import importlib.metadata; importlib.metadata.version("triton")' 2>/dev/null

# A stamp is written only when its set-up has ended well. Its name holds a checksum of what was asked for
# and where: other requirements, or a moved checkout, ask anew. UNFINISHED marks an environment whose first
# set-up has not ended well: the next one begins with an empty environment (pip's cache keeps the
# downloads). One that worked before is kept, also when pip fails on an update: it may be the only one that
# a machine without network can have.
CHECKSUM := $(shell (cat pyproject.toml constraints.txt; pwd) | cksum | cut -d ' ' -f 1)
SERVE_STAMP := $(VENV)/.ondol-serve-$(CHECKSUM)
TEST_STAMP := $(VENV)/.ondol-test-$(CHECKSUM)
UNFINISHED := $(VENV)/.ondol-unfinished
NODE_DIR := tests/e2e
NODE_CHECKSUM := $(shell cat $(NODE_DIR)/package-lock.json 2>/dev/null | cksum | cut -d ' ' -f 1)
NODE_STAMP := $(NODE_DIR)/node_modules/.ondol-$(NODE_CHECKSUM)
WEB_DIR := clients/web
WEB_CHECKSUM := $(shell cat $(WEB_DIR)/package-lock.json $(WEB_DIR)/vendor.mjs 2>/dev/null | cksum | cut -d ' ' -f 1)
WEB_STAMP := $(WEB_DIR)/vendor/.ondol-$(WEB_CHECKSUM)

.DEFAULT_GOAL := help
.PHONY: help serve test test-slow lint types contracts check node-setup web-setup browser-setup screenshots clean

help:
	@echo 'make serve       set up and serve MODEL on HOST:PORT (starter on 127.0.0.1:8000)'
	@echo 'make test        set up and run the tests'
	@echo 'make test-slow   run the proofs that need minutes'
	@echo 'make check       lint, types and contracts'
	@echo 'make screenshots take the pictures of docs/web.md'
	@echo 'make web-setup   install what the web chat shows markdown with (make serve does it)'
	@echo 'make clean       remove .venv, node_modules and caches'

serve: $(SERVE_STAMP) web-setup
ifeq ($(strip $(MODEL)),starter)
	@$(ONDOL) pull starter >/dev/null
endif
	@exec $(ONDOL) serve $(if $(MODEL),'$(MODEL)') $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)') $(ARGS)

test: $(TEST_STAMP) node-setup web-setup browser-setup
	$(VENV_PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)
	$(INTERPRETED) -m "not slow"

test-slow: $(TEST_STAMP) node-setup web-setup browser-setup
	$(VENV_PYTHON) -m pytest -m slow $(ARGS)
	$(INTERPRETED) -m slow

lint: $(TEST_STAMP)
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .

types: $(TEST_STAMP)
	$(VENV_PYTHON) -m mypy

contracts: $(TEST_STAMP)
	$(VENV)/bin/lint-imports

check: lint types contracts

clean:
	rm -rf $(VENV) $(NODE_DIR)/node_modules $(WEB_DIR)/node_modules $(WEB_DIR)/vendor build dist server/ondol.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

define CREATE_VENV
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "Ondol needs Python 3.11 or newer, and '$(PYTHON)' is not that ($$($(PYTHON) --version 2>&1))." >&2; \
	echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
@if [ -f $(UNFINISHED) ] || ! $(VENV_PYTHON) -m pip --version >/dev/null 2>&1; then \
	echo "Making $(VENV)"; $(PYTHON) -m venv --clear $(VENV) && touch $(UNFINISHED); fi
endef

$(SERVE_STAMP):
	$(CREATE_VENV)
	$(PIP_INSTALL) -e .
	@rm -f $(VENV)/.ondol-serve-* && touch $@ && rm -f $(UNFINISHED)

# What tests need includes what serving needs.
$(TEST_STAMP): $(SERVE_STAMP)
	$(CREATE_VENV)
	@$(HAS_TRITON) || $(PIP_INSTALL) '$(TRITON)'
	$(PIP_INSTALL) -e '.[dev]'
	@rm -f $(VENV)/.ondol-serve-* $(VENV)/.ondol-test-* && touch $(SERVE_STAMP) $@ && rm -f $(UNFINISHED)

node-setup:
	@if [ ! -f $(NODE_DIR)/package-lock.json ] || ! command -v npm >/dev/null; then \
		echo "npm or $(NODE_DIR)/package-lock.json is missing: the tests with Node clients are skipped"; \
	elif [ ! -f $(NODE_STAMP) ]; then \
		npm ci --prefix $(NODE_DIR) --no-audit --no-fund && touch $(NODE_STAMP); \
	fi

# What the web chat shows markdown, code and formulas with. Serving does not depend on it.
web-setup:
	@if [ ! -f $(WEB_STAMP) ] && [ -f $(WEB_DIR)/package-lock.json ]; then \
		if ! command -v npm >/dev/null; then \
			echo "npm is missing: the web chat shows plain text. Install Node.js 20 or newer and run 'make web-setup'." >&2; \
		elif npm ci --prefix $(WEB_DIR) --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error >&2 \
			&& node $(WEB_DIR)/vendor.mjs && touch $(WEB_STAMP); then :; else \
			echo "The web chat's packages could not be installed: it shows plain text. Try 'make web-setup' again." >&2; \
		fi; \
	fi

# The pictures of docs/web.md, on a scripted daemon.
screenshots: $(TEST_STAMP) web-setup browser-setup
	cd tests && $(abspath $(VENV))/bin/python -m support.web_screenshots $(abspath docs/images/web)

# The browser of the web chat's tests, with Hangul in its pictures.
browser-setup:
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-nanum >/dev/null \
			|| echo "Chromium could not be installed: the tests with a browser are skipped"; \
	else echo "Chromium is missing: the tests with a browser are skipped"; fi
