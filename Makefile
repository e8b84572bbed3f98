PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install run test chaos coverage bench docs lint audit format lock clean
.DELETE_ON_ERROR:

help: ## list the targets (what a bare `make` does)
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install everything pinned in requirements-dev.lock into .venv (the others do it by themselves)

run: $(INSTALLED) ## start everything on this machine: local AWS, provider sandbox, web, worker, beat, Flower; Ctrl-C stops it
	@exec $(BIN)/python -m mailrelay.local

test: $(INSTALLED) ## run every check and test; a part of the tests: make test ARGS="tests/unit -k settings"
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@$(MAKE) --no-print-directory lint
# Files side by side, since most tests wait for a server most of the time; in their order, which has
# those that wait longest before the many short ones.
	$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder
endif

bench: $(INSTALLED) ## measure mailrelay beside stock Celery on this machine, some 20 minutes, and print a table; a part: make bench ARGS="accept idle"
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(INSTALLED) ## cause faults in a real relay for 30 minutes and see that nothing is lost; less: make chaos ARGS="--minutes 5"
	@$(BIN)/python -m tests.chaos $(ARGS)

coverage: $(INSTALLED) ## run every test and show which lines none reaches; takes twice as long
	$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --cov

# PYTHONPATH: what docs/repository_links.py is there for, the site's generator has to find.
docs: $(INSTALLED) ## write the tables of docs/configuration.md, and build the documentation into build/site; read it: .venv/bin/python -m http.server -d build/site 8080
	@$(BIN)/cog -r docs/configuration.md
	@PYTHONPATH=docs $(BIN)/zensical build --strict

lint: $(INSTALLED) ## check style, format, types and security
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/bandit -q -c pyproject.toml --severity-level medium -r .
	$(BIN)/mypy

# Not a part of `make test`: its answer changes by itself. Strict: what cannot be looked up is not safe.
audit: $(INSTALLED) ## look up known vulnerabilities of all that is pinned; needs PyPI's database of them
	@failed=0; for lock in requirements.lock requirements-dev.lock; do \
		echo "$$lock:"; \
		$(BIN)/pip-audit --strict --disable-pip --progress-spinner off -r $$lock || failed=1; \
	done; \
	[ $$failed = 0 ] || { \
		echo "Something is vulnerable, or could not be looked up: see above." >&2; exit 1; }

format: $(INSTALLED) ## put the code into its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The second is a part of the first: what production installs is what was tested. Versions stay
# as they are where they can; to take newer ones: make lock ARGS=--upgrade
# Extras stay written: where a pin lacks one, pip 23 takes the newest version for the extra's sake.
COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --generate-hashes --no-header --no-strip-extras setup.cfg
lock: $(INSTALLED) ## resolve the dependencies in setup.cfg again, into both lock files
	$(COMPILE) --extra build --extra local --extra test -o requirements-dev.lock $(ARGS)
	$(COMPILE) -c requirements-dev.lock -o requirements.lock $(ARGS)

clean: ## remove .venv and what tools leave behind; .data, the state of `make run`, stays
	rm -rf .venv .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Made anew when what it was made from changes. Errors are shown in full, and nothing else.
# Not compiled, which is a third of the time: Python compiles what it imports, when it first does.
$(INSTALLED): requirements-dev.lock setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mailrelay needs Python 3.11 or newer as $(PYTHON); choose one with: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv and ensurepip; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	@echo "Installing into .venv, which takes a minute or some the first time ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
