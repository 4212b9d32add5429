# make run and make test need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
BIN = .venv/bin
SOURCES = benchmarks contacts_api migrations tests

.PHONY: run test test-system faults bench bench-scale lint audit requirements clean

run: .venv/.runs
	@$(BIN)/python -m contacts_api

test: .venv/.develops
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Needs what .ci/run installs: PostgreSQL with pg_trgm, Chromium, vdirsyncer, npm.
test-system: .venv/.develops
	bash tests/system/run

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
	$(COMPILE) -c requirements.txt -c requirements-seed.txt --group dev -o requirements-dev.txt
	$(COMPILE) -c requirements.txt --group bench -o requirements-bench.txt

clean:
	rm -rf .venv

.venv/.runs: requirements.txt requirements-seed.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	@echo "Installing into .venv …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
		-r requirements.txt -r requirements-seed.txt
	@touch $@

.venv/.develops: requirements-dev.txt .venv/.runs
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.venv/.benches: requirements-bench.txt .venv/.runs
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@
