# `make run` and `make test` need only Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = benchmarks contacts_api migrations tests
# To use another port: make run PORT=9000
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

# Needs the packages that .ci/run installs, such as PostgreSQL with pg_trgm, Chromium, vdirsyncer and npm.
test-system: .venv/.develops
	bash tests/system/run

# Runs the suite on Debian's PostgreSQL through PgBouncer, then tests standbys, and failovers by hand and by Patroni.
test-scale: .venv/.develops
	bash tests/scale/run

# Kills, freezes, fills and locks its own PostgreSQL, floods the API, and checks the guarantees. Takes eleven minutes.
# WITH="--only disk" runs only the faults with this word in their names.
# WITH="--binaries /usr/lib/postgresql/15/bin" tests another PostgreSQL. As root, it fills a small tmpfs.
faults: .venv/.develops
	@$(BIN)/python -m tests.faults $(WITH)

# Needs Linux, two cores and wrk. For options: make bench OPTIONS=--help
bench: .venv/.benches
	@$(BIN)/python -m benchmarks compare $(OPTIONS)

# Uses Debian's PostgreSQL, because it has pg_trgm.
bench-scale: .venv/.benches
	@$(BIN)/python -m benchmarks scale $(OPTIONS)

# After changing the models: make migration NAME="add company"
migration: .venv/.develops
	@$(if $(NAME),,$(error Describe the migration: make migration NAME="add company"))
	@$(BIN)/python -m migrations "$(NAME)"

lint: .venv/.develops
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/bandit --quiet --recursive -ll contacts_api migrations

# Asks pypi.org for known vulnerabilities.
audit: .venv/.develops
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.txt

# Run this after changing the dependencies in pyproject.toml.
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

# uv installs in seconds. It does not read pip's configuration, so pass it pip's index. If uv fails, use pip.
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
UV = UV_DEFAULT_INDEX=$$($(BIN)/pip config list | sed -n "s/.*\.index-url='\(.*\)'/\1/p" | tail -n 1) \
	$(BIN)/uv pip install --quiet --python .venv --require-hashes

.venv/.runs: requirements.txt requirements-seed.txt requirements-uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: make PYTHON=…")'
	@echo "Creating .venv and installing uv …"
	@$(PYTHON) -m venv .venv
	@$(PIP) --only-binary :all: -r requirements-uv.txt || echo "uv is not available for this machine."
	@echo "Installing the requirements of the API …"
	@$(UV) -r requirements.txt -r requirements-seed.txt || \
		{ echo "uv failed; using pip, which takes a minute …"; $(PIP) --no-compile -r requirements.txt -r requirements-seed.txt; }
	@touch $@

# Compile to bytecode, because the tests start many processes.
.venv/.develops: requirements-dev.txt .venv/.runs
	@echo "Installing the requirements of the tests and checks …"
	@$(UV) --compile-bytecode -r requirements-dev.txt || \
		{ echo "uv failed; using pip, which takes a minute …"; $(PIP) -r requirements-dev.txt; }
	@touch $@

.venv/.benches: requirements-bench.txt .venv/.runs
	@echo "Installing the requirements of the benchmarks …"
	@$(UV) -r requirements-bench.txt || $(PIP) -r requirements-bench.txt
	@touch $@
