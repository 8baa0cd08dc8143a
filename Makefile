# make demo | test | check | test-long | coverage | docs | results | sbom | release | clean: each sets up .venv by itself on the first call; later calls start at once.
# Without make, on Windows for instance: python tools/setup.py demo
FIND := for name in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && echo $$name && break; done
SETUP = $(or $(shell $(FIND)),$(error medres needs Python 3.11, 3.12 or 3.13: install one)) tools/setup.py
PY := .venv/bin/python

.PHONY: demo test test-long check coverage docs results sbom release format clean setup

demo test test-long check coverage docs:  ## the chain on a made-up cohort; the tests; format, lint, types and tests; ... (see TASKS in tools/setup.py)
	@$(SETUP) $@

results: setup  ## the figures of docs/results.md again, those that fit in an hour: make results DATA=FOLDER
	$(PY) benchmarks/results.py $(DATA) results

sbom release: setup  ## dist/: wheel, source archive, SBOM, licenses; release also tries every Python with every extra (see tools/check_release.py)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[release]"
	$(PY) tools/check_release.py $(if $(filter sbom,$@),sbom,all)

format: setup
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

setup:
	@$(SETUP)

clean:
	rm -rf .venv medres-demo site dist .pytest_cache .ruff_cache .mypy_cache
