# From a fresh clone, with Python 3.10 or newer and make:
#   make align   install, then align the bundled image model and show it before and after
#   make demo    install, then open the app in the browser
#   make test    install with the development tools, then run the tests
# Settings go on in ARGS: make align ARGS="--rounds 2 --seed 1", make test ARGS="-k selectors"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help align demo test slow check docs format clean

help:
	@echo 'make align   install, then align the bundled image model (ARGS="--rounds 2" changes settings)'
	@echo 'make demo    install, then open the app in the browser (ARGS="--port 7861")'
	@echo 'make test    install with the development tools, then run the tests (ARGS="-k NAME" picks some)'
	@echo 'make slow    the tests that take longer than ten seconds each: whole runs, browsers, notebooks'
	@echo 'make check   ruff, pyright and the arrows between rooms'
	@echo 'make docs    the documentation as a site, in site/'
	@echo 'make format  let ruff format and mend'
	@echo 'make clean   remove caches and build outputs; the virtual environment and runs/ stay'

align: $(VENV)/.installed
	$(BIN)/raft align $(ARGS)

demo: $(VENV)/.installed-demo
	$(BIN)/raft demo $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not network" $(ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not network" $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# A stamp says what was installed last; a change of the requirements makes it stale. Nothing is stamped that failed half-way.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(venv)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@$(hook)
	@touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	@$(venv)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@$(hook)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@$(venv)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@$(hook)
	@touch $(VENV)/.installed $(VENV)/.installed-demo $@

# The index's torchvision may not load beside a CPU torch; other programs (accelerate launch) import it before we can mend that.
hook = $(BIN)/python -c 'from raft_core.machine.torchvision import install_hook; install_hook()'

define venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	echo "Python 3.10 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1; }; \
test -x $(BIN)/pip || { echo "Making $(VENV) and installing; this takes a few minutes once."; $(PYTHON) -m venv $(VENV); }
endef
