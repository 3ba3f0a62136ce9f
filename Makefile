# Everything a person or a CI system runs. Each target finds or installs what it needs: see scripts/bootstrap.
#   VENV=DIR      where the Python environment is kept (default .venv)
#   ARGS="..."    more arguments for pytest, the lab or the benchmark
#   TIERS="..."   the directories of tests that `make test-net` runs
#   SOAK_SECONDS  how long `make soak` tries random groups and packets (default 600); SOAK_SEED repeats a run

VENV ?= .venv
ARGS ?=
TIERS ?= tests/net tests/api tests/e2e
SOAK_SECONDS ?= 600
PYTHON = $(VENV)/bin/python
# What runs on people's own machines, Windows and macOS included (docs/client.md).
CLIENT = src/wicketgate/client \
  $(patsubst %,src/wicketgate/cli/%.py,__init__ __main__ group quick tunnelling open_tunnel proxy ssh ssh_config env \
  machines host_setup explain explain_proof explain_words reach lint check audit)
BOOTSTRAP = scripts/bootstrap

# Programs of Debian's sbin directories are used by ordinary users too.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help lab test test-net soak check format bench deb clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

lab: ## build the made-up network, log in through its endpoints and print what passed and what was refused
	@$(BOOTSTRAP) server $(VENV)
	@$(VENV)/bin/wicketgate lab --tour $(ARGS)

test: ## run all tests: unit and wire, then network and end-to-end with the caller's privileges
	@$(BOOTSTRAP) test $(VENV)
	@failed=0; \
	$(PYTHON) -m pytest tests/test_layers.py tests/unit tests/wire tests/install $(ARGS) || failed=1; \
	$(MAKE) --no-print-directory test-net || failed=1; \
	exit $$failed

test-net: ## run the network and the end-to-end tests, each in a sandbox of its own
	@$(BOOTSTRAP) test $(VENV)
	@$(PYTHON) -m tests.stockcli >/dev/null # inside the sandbox there is no way to download clients
	@$(PYTHON) -m tests.otherclients >/dev/null
	@failed=0; \
	for tests in $(TIERS); do \
	  $(PYTHON) -m wicketgate.lab.sandbox -- $(PYTHON) -m pytest $$tests $(ARGS) || failed=1; \
	done; \
	exit $$failed

soak: ## every shape of the service models, a longer storm, and random groups and packets for SOAK_SECONDS
	@$(BOOTSTRAP) test $(VENV)
	@WICKETGATE_SOAK=1 $(PYTHON) -m pytest -q tests/unit/test_api_roundtrip.py $(ARGS)
	@WICKETGATE_STORM_CALLS=10000 $(PYTHON) -m wicketgate.lab.sandbox -- $(PYTHON) -m pytest -q tests/api/test_storm.py $(ARGS)
	@SOAK_SECONDS=$(SOAK_SECONDS) $(PYTHON) -m wicketgate.lab.sandbox -- $(PYTHON) -m tests.net.soak

check: ## format, lint, types, layers and unit tests: two minutes, no privileges, before every commit
	@$(BOOTSTRAP) dev $(VENV)
	@$(VENV)/bin/ruff format --check --quiet src tests keycommand $(wildcard bench) || { echo "run: make format"; exit 1; }
	@$(VENV)/bin/ruff check --quiet src tests keycommand $(wildcard bench)
	@$(VENV)/bin/mypy
	@$(VENV)/bin/mypy --strict --no-error-summary keycommand/wicketgate_keycommand.py
	@for platform in win32 darwin; do \
	  $(VENV)/bin/mypy --platform $$platform --follow-imports=silent --no-error-summary $(CLIENT) || exit 1; \
	done
	@$(PYTHON) -m pytest -q tests/test_layers.py tests/unit $(ARGS)

format: ## rewrite the sources in the project's format
	@$(BOOTSTRAP) dev $(VENV)
	@$(VENV)/bin/ruff format src tests keycommand $(wildcard bench)
	@$(VENV)/bin/ruff check --fix src tests keycommand $(wildcard bench)

bench: ## measure the tunnel, the API and the security groups beside their peers
	@$(BOOTSTRAP) bench $(VENV)
	@$(PYTHON) bench/tunnel.py $(ARGS)
	@$(PYTHON) bench/start.py
	@$(PYTHON) bench/api.py $(ARGS)
	@$(PYTHON) bench/rules.py $(ARGS)

deb: ## build the Debian package of a gateway host in dist/
	@$(BOOTSTRAP) dev $(VENV)
	@packaging/build-deb $(PYTHON) dist

clean: ## remove what the targets above made: environment, caches, build files
	rm -rf $(VENV) .cache build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
