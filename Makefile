# make demo: from nothing to a scored submission.  make test: all tests.  make check: format, lint, types.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo test check format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@echo "Setting up .venv with the tested versions (about 6 GB, some minutes; once, and again when they change)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	@echo "Digit scenes: 3 folds, then a submission. Several minutes on two cores; Ctrl-C is safe, make demo goes on."
	$(BIN)/python run_cv.py configs/demo.yaml
	$(BIN)/python make_submission.py runs/demo
	$(BIN)/python -m pipeline truth runs/demo data/digit_scenes/test_truth.csv

test: $(READY)
	$(BIN)/python -m pytest -n 2 --cov=pipeline --cov-branch --cov-report=
	@echo "branch coverage of pipeline/: $$($(BIN)/coverage report --format=total) %"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
