# `make help` lists what this file can do. Everything runs inside .venv, which is made when missing.
.DEFAULT_GOAL := help
.PHONY: help venv book test lint types unit nbval notebooks setup-cells pictures runs-index \
        repository gpu-check mutants clean

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
SITE   := _build/html
WORKERS ?= 2
# One thread per process: the workers below share the cores already.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python {sys.version.split()[0]} is too old: this book needs 3.10 or newer. Name another one: make PYTHON=python3.12 book")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "Python could not make $(VENV). On Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing the requirements into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check 'pip>=23'
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@touch $@

venv: $(STAMP)  ## make .venv and install the requirements and vitcore

book: $(STAMP)  ## build the website into _build/html, warnings are errors
	$(VENV)/bin/jupyter-book build . -W --keep-going --all -q
	@$(PY) -m tools.build_wheel $(SITE)/dist
	@echo
	@echo "The book is built. Open this file in a browser: $(CURDIR)/$(SITE)/index.html"

lint: $(STAMP)  ## ruff: style and format of code and notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)  ## mypy
	$(PY) -m mypy

unit: book  ## unit tests of vitcore, of the house and of the built site, with coverage
	$(ONE_THREAD) $(PY) -m pytest tests -n $(WORKERS) --dist loadfile --cov --cov-report=term

nbval: $(STAMP)  ## execute every cell of every notebook, shortened (VITCORE_QUICK=1)
	$(ONE_THREAD) VITCORE_QUICK=1 VITCORE_STANDIN=1 $(PY) -m pytest --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout=300 -p no:cacheprovider -n $(WORKERS) --dist loadfile notebooks

test: lint types unit nbval  ## everything above, in at most 15 minutes on two cores
	@echo "All tests passed."

notebooks: $(STAMP)  ## run all chapters in full and commit-ready, or one: make notebooks NB=06_mnist
	$(PY) -m tools.run_notebooks $(NB)

setup-cells: $(STAMP)  ## write the Colab setup cell into every notebook
	$(PY) -m tools.setup_cell

pictures: $(STAMP)  ## draw the front page's picture, the logo and the favicon anew
	$(PY) -m tools.draw_pictures

runs-index: $(STAMP)  ## write the checksums of runs/ into vitbook/runs.json and the table into README.md
	$(PY) -m tools.runs_index

repository: $(STAMP)  ## set the repository's address everywhere: make repository URL=https://github.com/you/book
	@test -n "$(URL)" || { echo "Say which: make repository URL=https://github.com/you/book"; exit 2; }
	$(PY) -m tools.set_repository "$(URL)"

gpu-check: $(STAMP)  ## what only a CUDA device can show; says so and passes where there is none
	$(PY) -m tools.gpu_check

mutants: $(STAMP)  ## plant small mistakes in lines changed since BASE, or in FILES="a.py b.py", and list those that live
	$(PY) -m tools.mutants $(if $(BASE),--base $(BASE)) $(if $(FILES),--files $(FILES)) $(if $(SAMPLE),--sample $(SAMPLE))

clean:  ## remove what was built, keep .venv
	rm -rf _build build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
