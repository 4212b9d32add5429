# make run and make test need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = contacts_api migrations tests

.PHONY: run test test-system lint requirements clean

run: .venv/.runs
	@$(BIN)/python -m contacts_api

test: .venv/.develops
	$(BIN)/pytest

# Needs what .ci/run installs: PostgreSQL with pg_trgm, Chromium, npm.
test-system: .venv/.develops
	bash tests/system/run

lint: .venv/.develops
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# After a change of the dependencies in pyproject.toml.
requirements:
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --upgrade \
		--custom-compile-command "make requirements" pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--custom-compile-command "make requirements" -c requirements.txt --group dev -o requirements-dev.txt

clean:
	rm -rf .venv

.venv/.runs: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	@echo "Installing into .venv …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.txt
	@touch $@

.venv/.develops: requirements-dev.txt .venv/.runs
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
