# One command each. Everything lives in .venv; nothing else on the machine is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
# Without bytecode on disk every process compiles all that it imports: two to three times the time of a command.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage lint bench defence docs trace fuzz matrix soak lock clean

$(VENV)/run: requirements/run.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Of twenty thousand modules few are ever imported: those are compiled then, which is half of the time of the installation.
$(VENV)/dev: requirements/dev.txt requirements/torch.txt $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements/torch.txt
	@touch $@

demo: $(VENV)/run ## Assure a real tumour classifier and print where the report is.
	@sh examples/tumour/demo.sh $(BIN) $(DEMO)

test: $(VENV)/dev lint ## All tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile --trace-out=build/trace.json
	$(BIN)/python -m bartizan.testing.trace build/trace.json --out build/trace.md

coverage: $(VENV)/dev ## Which lines the tests run; takes twice the time of the tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=
	$(BIN)/python -m coverage combine --quiet --append 2>/dev/null || true
	$(BIN)/python -m coverage report --skip-covered --skip-empty

lint: $(VENV)/dev ## Style, types, import direction.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev ## Every performance promise, as a ratio beside its floor.
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

defence: $(VENV)/dev ## Attack the examples with and without the gateway; prints the tables of docs/gateway/defence.md (half an hour or less).
	@$(BIN)/python examples/defence.py

docs: $(VENV)/dev ## HTML documentation into build/docs.
	$(BIN)/python -m sphinx -W -q -b html docs build/docs
	@echo "open build/docs/index.html"

trace: $(VENV)/dev ## Which catalogue items have a passing acceptance test; writes docs/trace.md.
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "control and not slow" --trace-out=build/trace.json
	$(BIN)/python -m bartizan.testing.trace build/trace.json --out docs/trace.md
	@echo "wrote docs/trace.md"

fuzz: $(VENV)/dev ## Mutate every parser for a long time: make fuzz SECONDS=3600
	for script in tests/fuzz/fuzz_*.py; do $(BIN)/python $$script --seconds $(or $(SECONDS),600) || exit 1; done

matrix: $(VENV)/dev ## Scan what many versions of the frameworks save, and what the installed packages ship (slow; needs uv).
	$(BIN)/python tests/matrix/run.py build/matrix
	$(BIN)/python tests/matrix/installed.py

soak: $(VENV)/dev ## The slow tests; the longest takes ten minutes: make soak MINUTES=60
	BARTIZAN_SOAK_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -m slow

lock: ## Pin every dependency with hashes (needs uv).
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml requirements/build.in -o requirements/run.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra serve --extra onnx --extra postgres --extra s3 --extra telemetry --extra valkey pyproject.toml requirements/build.in -o requirements/gateway.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt

clean:
	rm -rf build $(VENV)
