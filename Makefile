# Every target works from a bare clone: it makes .venv first. Only Python >= 3.11 and make are needed
# (the tests of the Kubernetes side also build the real API server, those of pages ask for a browser: tools/README.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help demo test compile pure kube chart fuzz chaos lint bench format lock clean
help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "heddle needs Python >= 3.11; say which: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed ## two teams share simulated GPUs and really train (a minute or two)
	@$(RUN) $(BIN)/python examples/demo/demo.py $(ARGS)

test: $(VENV)/.installed ## all tests, the real kube-apiserver and a browser included (ARGS="-k name" for some)
	@# built before the tests, whose time limits are short; where it cannot be built they say why they skip
	@$(BIN)/python tools/controlplane.py build >/dev/null || true
	@$(BIN)/python tools/browser.py install >/dev/null || true
	@$(RUN) $(BIN)/python -m pytest $(ARGS)

compile: $(VENV)/.installed ## the engine as machine code, about 1.5 times as fast (needs a C compiler and minutes; undone by make pure)
	@HEDDLE_COMPILE=1 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

pure: ## back to the engine as Python
	@find src -name '*.so' -delete

kube: $(VENV)/.installed ## a real Kubernetes control plane with four nodes of fake GPUs to play with (needs Go; NODE=1: and a real node)
	@$(RUN) $(BIN)/python tools/controlplane.py kube $(if $(NODE),--node)

chart: $(VENV)/.installed ## write the Helm chart and docs/kubernetes-*.md from src/heddle/deploy
	@$(BIN)/python -m heddle.deploy .

fuzz: $(VENV)/.installed ## the engine's random worlds for long (STEPS=1000000 cycles; KIND=... SEED=... replays one)
	@$(BIN)/python tests/unit/engine/fuzz.py $(if $(STEPS),--steps $(STEPS)) $(if $(KIND),--kind $(KIND)) $(if $(SEED),--seed $(SEED)) $(ARGS)

chaos: $(VENV)/.installed ## faults under a load of gangs on a real API server (FAULTS=500 SEED=1)
	@$(BIN)/python tools/controlplane.py build >/dev/null
	@HEDDLE_FAULTS=$(or $(FAULTS),500) HEDDLE_SEED=$(or $(SEED),1) $(RUN) $(BIN)/python -m pytest tests/kubernetes/test_chaos.py $(ARGS)

lint: $(VENV)/.installed ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(RUN) $(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed ## all benchmarks, shortest settings
	@$(RUN) $(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/.installed ## let ruff mend style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## renew requirements/*.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 pyproject.toml --output-file requirements/run.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 pyproject.toml --group dev --extra demo --output-file requirements/dev.lock

clean: pure ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
