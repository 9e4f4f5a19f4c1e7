# make demo    the whole loop on this machine's CPU, with a real 135M judge
# make test    unit tests, then fault, integration and GPU tests, in two processes side by side
# make faults  every fault of docs/reliability.md (test has a short form of it): before a release; 37 min on two cores
# make long    real parts that test has no time for (further recipes, other ways to the same tables): before a release
# All of them set everything up first: .venv, pinned packages, the model. Linux x86-64, Python 3.11 or 3.12.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := .cache/models/smollm2-135m-instruct
READY  := $(VENV)/.ready
SHORT  := not matrix and not long
# Two processes: half of a test with a real engine or trainer is imports and starts, on one core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --no-loadscope-reorder

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test faults long unit browser observe chromium prometheus docs lint models models-served setup clean
.DELETE_ON_ERROR:

demo: setup
	$(BIN)/python -m ray_app.iterate --config configs/smollm2-135m-cpu.yaml

test: setup
	$(PYTEST) --durations=5 -m '$(SHORT)' tests/unit
	$(PYTEST) --durations=15 -m '$(SHORT)' tests/orchestration tests/faults tests/integration tests/gpu

unit: $(READY)
	$(PYTEST) -m '$(SHORT)' tests/unit

faults: setup
	$(PYTEST) --durations=15 tests/faults
	$(PYTEST) --durations=15 -m matrix tests/unit tests/orchestration tests/integration

long: setup
	$(PYTEST) --durations=15 -m long tests/unit tests/orchestration tests/integration

# The report in a real browser, light and dark, wide and narrow, by keyboard.
browser: $(READY) chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50'
	$(BIN)/python -m pytest -q tests/browser

# Prometheus on a live job: every query of the dashboard and of the alerts
observe: $(READY) prometheus
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/observe

# Debian's packages, where they are not on the path; that they cannot be had is an error
chromium prometheus:
	@scripts/fetch_tool.sh $@

# The documentation as a site, in site/; a broken link fails
docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.6'
	$(BIN)/python -m mkdocs build --quiet

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

models: $(READY)
	$(BIN)/python scripts/models.py

models-served: $(READY)
	$(BIN)/python scripts/models_served.py

setup: $(READY) $(MODEL)/config.json

$(READY): requirements/cpu.txt requirements/cpu.lock pyproject.toml
	@scripts/check_platform.sh "$(PYTHON)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/cpu.txt -c requirements/cpu.lock
	@touch $@

$(MODEL)/config.json: | $(READY)
	$(BIN)/python -m ray_app.demo_model $(MODEL)

clean:
	rm -rf $(VENV) .cache runs
