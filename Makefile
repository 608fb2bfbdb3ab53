# `make` alone lists what there is. Needs a POSIX shell, git and Python 3.11 to 3.13; everything else
# goes into .venv, once.

PYTHON ?= python3
STUDY ?= smoke
CORES ?= all
WORKERS ?= 2
EXTRAS ?= app,dev,docs,export,sweep,tensorboard

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
REPORT := outputs/reports/$(STUDY)/index.html

# The commands of the workflow and the notebooks' kernels come from the environment.
export PATH := $(BIN):$(PATH)

# Asked before anything is installed.
ifneq ($(filter study,$(MAKECMDGOALS)),)
ifeq ($(wildcard configs/$(STUDY).yaml),)
$(error there is no study '$(STUDY)'; there are: $(basename $(notdir $(wildcard configs/*.yaml))))
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env study test test-slow lab app docs check clean clean-runs distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Settings: STUDY=$(STUDY) CORES=$(CORES) WORKERS=$(WORKERS) PYTHON=$(PYTHON)'
	@echo 'For example: make study STUDY=laptop CORES=4'

env: $(STAMP) ## create the environment .venv, if it is missing or out of date

study: $(STAMP) ## train the networks of a study and report on them; only what is missing is done
	@status=0; "$(BIN)/senet" study configs/$(STUDY).yaml --cores $(CORES) || status=$$?; \
	if [ $$status -ne 0 ] && [ $$status -ne 2 ]; then echo "make: the study ended with errors; the same command goes on from here" >&2; fi; \
	if [ $$status -ne 2 ] && [ -f $(REPORT) ]; then echo "report: $(CURDIR)/$(REPORT)"; fi; \
	exit $$status

test: $(STAMP) ## run the tests, but for the slow ones
	@"$(BIN)/python" -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(STAMP) ## run the slow ones: whole studies, kills, commands of the docs, JupyterLab in a browser
	@"$(BIN)/python" -m pytest -q -n $(WORKERS) --dist worksteal -m slow

lab: $(STAMP) ## open JupyterLab on the notebooks; the index lists them and the runs
	@"$(BIN)/senet" lab

# The setting lets one's own pictures, of up to 10 MB, get through.
app: $(STAMP) ## open the explorer as a page of its own, without code
	@"$(BIN)/voila" notebooks/explore.ipynb --Voila.tornado_settings="{'websocket_max_message_size':20_000_000}"

docs: $(STAMP) ## make pages of docs/ and of the docstrings; needs no network
	@"$(BIN)/python" -m sphinx --quiet --fail-on-warning --keep-going docs outputs/docs
	@echo "docs: $(CURDIR)/outputs/docs/index.html"

check: $(STAMP) ## ruff, formatting, notebooks without outputs
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@for notebook in notebooks/*.ipynb; do "$(BIN)/nbstripout" --verify --keep-id "$$notebook" || exit 1; done

clean: ## remove caches, builds, reports, pages and figures; runs stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis outputs/reports outputs/figures outputs/docs docs/api
	find . \( -path ./$(VENV) -o -path ./.git -o -path ./outputs \) -prune -o \
	  \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

clean-runs: clean ## remove the trained runs too; outputs/published always stays
	rm -rf outputs/runs .snakemake

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { \
	  echo "make: there is no $(PYTHON); name a Python 3.11 to 3.13, as in: make PYTHON=python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1); Python 3.11 to 3.13 is needed, as in: make PYTHON=python3.12" >&2; exit 2; }
	@"$(BIN)/python" -m pip --version > /dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV) || { \
	  echo "make: cannot create $(VENV); on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into $(VENV), once (with CUDA on Linux several GB) ..."
	"$(BIN)/python" -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@"$(BIN)/python" -c 'from senet_lib.device import Setup; Setup.choose(device="cpu", precision="auto", compile="auto", threads=0)' # builds the kernels
	@touch $@
