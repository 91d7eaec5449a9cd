# Pegnode. `make` alone prints the targets.

VENV := .venv
# The stamp's name carries the lock's checksum: up to date is a file test, out of date reinstalls.
LOCKED := $(shell cat requirements.lock pyproject.toml | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(LOCKED)
# The one tool that users don't need: it resolves, they only install.
UV := uv==0.13.8

SOURCES := $(wildcard bridge federation pegnode tests bench)

.PHONY: help setup venv bitcoind demo test sim model soak check fuzz bench lock clean
.DEFAULT_GOAL := help

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: venv bitcoind ## Install everything into .venv, and a bitcoind if there is none
	@echo "setup: done; try 'make demo', or '$(VENV)/bin/peg --help'"

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@sh scripts/setup-venv.sh $(VENV)
	@rm -f $(VENV)/.installed-*
	@touch $@

bitcoind:
	@sh scripts/fetch-bitcoind.sh

demo: venv bitcoind ## A local federation: deposit, transfer, withdrawal, from one end to the other
	@$(VENV)/bin/peg demo

test: venv bitcoind ## Run the unit, vector, simulation, attack and functional tests
	@sh scripts/run-tests.sh $(VENV)

sim: venv ## Run SEEDS (1,000) bad times of a whole simulated federation, from seed FIRST on: 1 s of one core each
	@$(VENV)/bin/python -m tests.sim --seeds $(or $(SEEDS),1000) $(if $(FIRST),--first $(FIRST))

model: venv ## Explore every state of four members, one of them Byzantine, in VIEWS (2) views: three minutes of one core
	@$(VENV)/bin/python -m tests.model --views $(or $(VIEWS),2) $(if $(BYZANTINE),--byzantine $(BYZANTINE))

# The first part ends with its kills; the second goes on where it was stopped, by what it keeps in .sim/.
soak: venv bitcoind ## Kill members under load, KILLS times (200) at moments from SEED; fail links; then SEEDS (20,000) of `make sim`
	@$(VENV)/bin/python -m tests.soak --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))
	@$(VENV)/bin/python -m pytest tests/soak
	@$(VENV)/bin/python -m tests.sim --seeds $(or $(SEEDS),20000) --resume .sim/soak.json

check: venv ## Lint, formatting, types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy --strict $(SOURCES)

fuzz: venv ## Fuzz every decoder and all validation, MINUTES (20) of CPU for each of the targets, or for TARGETS
	@$(VENV)/bin/python -m tests.fuzz --minutes $(or $(MINUTES),20) $(TARGETS)

bench: venv bitcoind ## Measure
	@$(VENV)/bin/python -m bench

lock: $(VENV)/uv/bin/uv ## Resolve the dependencies anew into requirements.lock
	@env -u UV_FIND_LINKS -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_DEFAULT_INDEX \
		$(VENV)/uv/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --extra dev --override scripts/lock-overrides.txt \
		--custom-compile-command "make lock" $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml

$(VENV)/uv/bin/uv: | $(STAMP)
	@$(VENV)/bin/python -m venv $(VENV)/uv
	@$(VENV)/uv/bin/python -m pip --quiet --disable-pip-version-check install --only-binary=:all: $(UV)

clean: ## Remove the environment and every cache
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .sim
	find bridge federation pegnode tests -name __pycache__ -type d -prune -exec rm -rf {} +
