# From a fresh clone, with Python 3.11 to 3.13 and nothing else:
#   make demo        collect CarRacing data, train, evaluate, export; make demo ARGS=--fast for two minutes of it
#   make test        the tests, on all cores; make test-all with the slow ones, make lint for style, types and layering
#   make test-properties   the replay's property tests on 100,000 cases; fewer: make test-properties CASES=5000
#   make docs        the documentation on http://127.0.0.1:8000, rebuilt when a page or the code changes
#   make site        the documentation as static files in site/;   make dist   the wheel and the sdist in dist/
#   make lock        requirements-lock.txt, the tested set with hashes, after a change to constraints.txt
#   make audit       known vulnerabilities of the locked set (AUDIT_SECONDS=300 on a slow line);   make sbom   its bill of materials in dist/
# PYTHON names the interpreter that makes .venv: make demo PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
CASES ?= 100000
AUDIT_SECONDS ?= 15
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
PYTHON ?= python3 python3.13 python3.12 python3.11
SUPPORTED := not (3, 11) <= sys.version_info[:2] <= (3, 13)

.PHONY: demo test test-all test-properties lint docs site dist lock audit sbom clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/carracing_bcq.py $(ARGS)

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/dev.stamp
	$(PYTEST) $(ARGS)

test-properties: $(VENV)/dev.stamp
	OFFRL_PROPERTY_CASES=$(CASES) $(PYTEST) tests/replay/test_replay.py $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

docs: $(VENV)/dev.stamp
	$(BIN)/python -m mkdocs serve $(ARGS)

site: $(VENV)/dev.stamp
	$(BIN)/python -m mkdocs build --strict --site-dir site $(ARGS)

dist: $(VENV)/dev.stamp
	$(BIN)/python -m build --outdir dist .

# onnx2pytorch is locked as it is installed: without what it asks for.
lock: $(VENV)/dev.stamp
	mkdir -p build
	$(PIP) --quiet --dry-run --ignore-installed --report build/lock.json ".[dev]"
	$(PIP) --quiet --dry-run --ignore-installed --report build/lock-no-deps.json --no-deps onnx2pytorch
	$(BIN)/python .ci/lock.py build/lock.json build/lock-no-deps.json requirements-lock.txt

audit: $(VENV)/dev.stamp
	$(BIN)/python .ci/audit.py requirements-lock.txt $(AUDIT_SECONDS)

sbom: $(VENV)/dev.stamp
	mkdir -p dist
	$(BIN)/python -m cyclonedx_py requirements --pyproject pyproject.toml --mc-type library --output-reproducible \
		--of JSON -o dist/offrl.cdx.json requirements-lock.txt

# Keeps data/ and runs/, which are the user's.
clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find offrl tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is missing, incomplete or of another Python is created again.
define make_venv
@$(BIN)/python -c 'import pip, sys; sys.exit($(SUPPORTED))' 2>/dev/null || { \
	for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit($(SUPPORTED))' 2>/dev/null; then \
			echo "making $(VENV) with $$($$python --version)"; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "error: offrl needs Python 3.11, 3.12 or 3.13, and found none as: $(PYTHON);" \
		"install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1; }
endef

$(VENV)/demo.stamp: pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) -e ".[demo]"
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps onnx2pytorch
	@touch $(VENV)/demo.stamp $@
