# make run and make test need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = benchmarks contacts_api migrations tests
# make run PORT=9000
HOST = 127.0.0.1
PORT = 8000

.PHONY: run dev test test-system test-scale faults bench bench-scale migration lint audit requirements clean

run: .venv/.runs
	@$(BIN)/python -m contacts_api --host $(HOST) --port $(PORT)

# Restarts when the code changes.
dev: .venv/.runs
	@$(BIN)/python -m contacts_api --host $(HOST) --port $(PORT) --reload

test: .venv/.develops
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Needs what .ci/run installs: PostgreSQL with pg_trgm, Chromium, vdirsyncer, npm.
test-system: .venv/.develops
	bash tests/system/run

# The suite once more, on Debian's PostgreSQL through PgBouncer; then standbys, and failovers by hand and by Patroni.
test-scale: .venv/.develops
	bash tests/scale/run

# Kills, freezes, fills and locks a PostgreSQL of its own, floods the API, and counts what was promised: eleven minutes.
# WITH="--only disk" tries only the faults with this word in their names.
# As root it fills a small tmpfs; WITH="--binaries /usr/lib/postgresql/15/bin" tries another PostgreSQL.
faults: .venv/.develops
	@$(BIN)/python -m tests.faults $(WITH)

# They need Linux, two cores and wrk; `make bench OPTIONS=--help` says more.
bench: .venv/.benches
	@$(BIN)/python -m benchmarks compare $(OPTIONS)

# Uses the PostgreSQL that Debian has installed, for its pg_trgm.
bench-scale: .venv/.benches
	@$(BIN)/python -m benchmarks scale $(OPTIONS)

# After a change of the models: make migration NAME="add company"
migration: .venv/.develops
	@$(if $(NAME),,$(error Say what the migration does: make migration NAME="add company"))
	@$(BIN)/python -m migrations "$(NAME)"

lint: .venv/.develops
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/bandit --quiet --recursive -ll contacts_api migrations

# Needs pypi.org, which says what is known to be vulnerable.
audit: .venv/.develops
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.txt

# After a change of the dependencies in pyproject.toml.
requirements: COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make requirements"
requirements:
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv
	$(COMPILE) pyproject.toml -o requirements.txt
	echo faker | $(COMPILE) --no-deps - -o requirements-seed.txt
	echo uv | $(COMPILE) --no-deps - -o requirements-uv.txt
	$(COMPILE) -c requirements.txt -c requirements-seed.txt --group dev -o requirements-dev.txt
	$(COMPILE) -c requirements.txt --group bench -o requirements-bench.txt
	echo openapi-python-client | $(COMPILE) --python-version 3.11 - -o tests/clients/requirements.txt

clean:
	rm -rf .venv

# uv takes a few seconds. It does not read pip's configuration, so it is told pip's index; where it fails, pip installs.
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
UV = UV_DEFAULT_INDEX=$$($(BIN)/pip config list | sed -n "s/.*\.index-url='\(.*\)'/\1/p" | tail -n 1) \
	$(BIN)/uv pip install --quiet --python .venv --require-hashes

.venv/.runs: requirements.txt requirements-seed.txt requirements-uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	@echo "Making .venv, and installing uv into it …"
	@$(PYTHON) -m venv .venv
	@$(PIP) --only-binary :all: -r requirements-uv.txt || echo "There is no uv for this machine."
	@echo "Installing what the API needs …"
	@$(UV) -r requirements.txt -r requirements-seed.txt || \
		{ echo "Once more, with pip; this takes a minute …"; $(PIP) --no-compile -r requirements.txt -r requirements-seed.txt; }
	@touch $@

# Compiled, since the tests start many processes.
.venv/.develops: requirements-dev.txt .venv/.runs
	@echo "Installing what the tests and checks need …"
	@$(UV) --compile-bytecode -r requirements-dev.txt || \
		{ echo "Once more, with pip; this takes a minute …"; $(PIP) -r requirements-dev.txt; }
	@touch $@

.venv/.benches: requirements-bench.txt .venv/.runs
	@echo "Installing what the benchmarks need …"
	@$(UV) -r requirements-bench.txt || $(PIP) -r requirements-bench.txt
	@touch $@
