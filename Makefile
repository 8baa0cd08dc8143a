# make demo | test | check | test-long | coverage | docs | results | clean: each sets up .venv by itself on the first call; later calls start at once.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.ready

.PHONY: demo test test-long check coverage docs results format clean

demo: $(STAMP)  ## the whole chain on a made-up DICOM cohort; prints where the report is
	.venv/bin/medres demo --out medres-demo

test: $(STAMP)  ## the default test suite (a few minutes on two cores)
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: $(STAMP)  ## the experiments that take minutes to hours
	$(PY) -m pytest -m long --timeout 7200

check: $(STAMP)  ## format, lint, types, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: $(STAMP)  ## the default suite, with the lines and branches that it does not reach
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

docs: $(STAMP)  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

results: $(STAMP)  ## the figures of docs/results.md again, those that fit in an hour: make results DATA=FOLDER
	$(PY) benchmarks/results.py $(DATA) results

format: $(STAMP)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	bash tools/setup.sh

clean:
	rm -rf .venv medres-demo site .pytest_cache .ruff_cache .mypy_cache
