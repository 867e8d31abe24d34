# make help lists the targets. Variables:
#   DATA=phantom|cxr4|cxr4plus|seed|folder   DATA_ROOT=PATH   RUN=name   PRETRAINED=hub|none|PATH
#   MEMBERS="mobilenetv2 inceptionv3"   ARGS="any=override"   PYTHON=python3
#   ENSEMBLE="pool=linear weight_prior=0" for the ensemble that make train fits
DATA ?= phantom
DATA_ROOT ?=
RUN ?= default
PRETRAINED ?=
MEMBERS ?= mobilenetv2 inceptionv3
ARGS ?=
ENSEMBLE ?=
PYTHON ?= python3
BUNDLE ?= outputs/$(DATA)/$(RUN)/bundle
APP_DATA ?= outputs/app
PORT ?= 5000
NAME ?=
FOLDS ?= 5
SPLIT ?=
VENV ?= .venv

PY := $(VENV)/bin/python
PIP := $(VENV)/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt
WHICH := data=$(DATA) run=$(RUN)
ROOT := $(if $(DATA_ROOT),data.root=$(DATA_ROOT))
COMMA := ,
LIST := [$(subst $() ,$(COMMA),$(strip $(MEMBERS)))]
WEIGHTS := $(if $(PRETRAINED),model.pretrained=$(PRETRAINED))

.DEFAULT_GOAL := help
.PHONY: help install download prepare train distil ensemble evaluate report audit evaluate_on cv lungs experiment mitigate explain export recalibrate app account notebook test test-long lint format clean

help: ## every target with a line
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  DATA=phantom|cxr4|cxr4plus|seed|folder DATA_ROOT=PATH RUN=name PRETRAINED=hub|none|PATH ARGS="overrides"'
	@echo '  python scripts/X.py data=D run=R key=value in a message is make X DATA=D RUN=R ARGS="key=value" here'

# The stamp is newer than the two files while what they ask for is installed.
$(VENV)/.train: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or later is needed: give PYTHON=/path/to/python3' >&2; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV) (once, minutes)'
	@$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/.test: $(VENV)/.train
	@echo 'installing what the tests need (once)'
	@$(PIP) --editable '.[train,notebook,dev]'
	@touch $@

$(VENV)/.serve: pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo 'installing what the application needs (once)'
	@$(PIP) --editable '.[serve]'
	@touch $@

install: $(VENV)/.train ## make .venv and install, once

download: $(VENV)/.train ## fetch the public sources: make download DATA=cxr4 [DATA_ROOT=PATH]
	@$(PY) scripts/download.py data=$(DATA) $(ROOT) $(ARGS)

prepare: $(VENV)/.train ## read, check, group, split and decode the data
	@$(PY) scripts/prepare.py $(WHICH) $(ROOT) $(ARGS)

train: $(VENV)/.train ## prepare, train every member, fit the ensemble, show validation
	@set -e; for member in $(MEMBERS); do \
	  $(PY) scripts/train.py $(WHICH) $(ROOT) model=$$member $(WEIGHTS) $(ARGS); done
	@$(PY) scripts/ensemble.py $(WHICH) $(ENSEMBLE)

distil: $(VENV)/.train ## one small network that learns from a run's ensemble, as run RUN-student
	@$(PY) scripts/distil.py $(WHICH) $(WEIGHTS) $(ARGS)

ensemble: $(VENV)/.train ## fit the ensemble of the trained members again
	@$(PY) scripts/ensemble.py $(WHICH) $(ARGS)

evaluate: $(VENV)/.train ## open the test split: metrics, intervals, figures
	@$(PY) scripts/evaluate.py $(WHICH) $(ARGS)

report: $(VENV)/.train ## write report and cards anew from what is there; opens no test split
	@$(PY) scripts/report.py $(WHICH) $(ARGS)

evaluate_on: $(VENV)/.train ## measure a run on other data: DATA=… [DATA_ROOT=PATH] RUN=data/run
	@$(PY) scripts/evaluate_on.py $(WHICH) $(ROOT) $(ARGS)

audit: $(VENV)/.train ## the shortcut tests, each with a verdict
	@$(PY) scripts/audit.py $(WHICH) $(ARGS)

cv: $(VENV)/.train ## cross-validate: FOLDS=5 by patient, SPLIT=source leaves each source out; goes on
	@set -e; for member in $(MEMBERS); do \
	  $(PY) scripts/cv.py $(WHICH) $(ROOT) $(if $(SPLIT),split=$(SPLIT),folds=$(FOLDS)) 'members=$(LIST)' model=$$member $(WEIGHTS) $(ARGS); done

lungs: $(VENV)/.train ## train the lung finder on a data set's masks, and measure it
	@$(PY) scripts/lungs.py $(WHICH) $(ROOT) $(if $(PRETRAINED),finder.pretrained=$(PRETRAINED)) $(ARGS)

# Unless DATA or RUN is given, leak is of data=seed in a run called leak, published of cxr4.
DATA_leak := seed
DATA_published := cxr4
DATA_mitigation := cxr4plus
experiment: $(VENV)/.train ## leak, published, mitigation: make experiment NAME=leak DATA_ROOT=PATH
	@test -n '$(DATA_$(NAME))' || { echo 'error: NAME=$(NAME) is no experiment: leak, published and mitigation are' >&2; exit 2; }
	@$(PY) -m experiments.$(NAME) data=$(if $(filter file,$(origin DATA)),$(DATA_$(NAME)),$(DATA)) \
	  run=$(if $(filter file,$(origin RUN)),$(NAME),$(RUN)) $(ROOT) $(WEIGHTS) $(ARGS)

mitigate: ## what takes shortcuts away, before and after: make mitigate DATA=cxr4plus DATA_ROOT=PATH
	@$(MAKE) --no-print-directory experiment NAME=mitigation

explain: $(VENV)/.train ## Grad-CAM figures
	@$(PY) scripts/explain.py $(WHICH) $(ARGS)

export: $(VENV)/.train ## the model as one folder: graph, weights, card, thresholds
	@$(PY) scripts/export.py $(WHICH) $(ARGS)

recalibrate: $(VENV)/.train ## fit a bundle's confidence to local images: DATA=folder DATA_ROOT=… RUN=data/run
	@$(PY) scripts/recalibrate.py $(WHICH) $(ROOT) $(ARGS)

app: $(VENV)/.serve ## serve the bundle on 127.0.0.1 (exports it first where there is none)
	@test -f '$(BUNDLE)/bundle.json' || $(MAKE) --no-print-directory export
	@$(PY) scripts/app.py '$(BUNDLE)' --data '$(APP_DATA)' --port $(PORT)

account: $(VENV)/.serve ## an account of the application: make account NAME=ann
	@test -n '$(NAME)' || { echo 'error: give the name: make account NAME=ann' >&2; exit 2; }
	@CXR_DATA_FOLDER='$(APP_DATA)' $(VENV)/bin/flask --app cxr.serve users add '$(NAME)'

notebook: $(VENV)/.test ## write the notebooks as .ipynb
	@$(VENV)/bin/jupytext --to ipynb notebooks/*.py

test: $(VENV)/.test ## install what the tests need and run them, but for the long ones
	@$(PY) -m pytest -m 'not long' $(ARGS)

test-long: $(VENV)/.test ## the long tests: exports, audits, servers, browser
	@$(PY) -m pytest -m long $(ARGS)

lint: $(VENV)/.test ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

format: $(VENV)/.test ## let ruff mend what it can
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

# Former names, for one version.
.PHONY: data evaluate-on
data evaluate-on:
	@echo 'make $@ is now called make $(if $(filter data,$@),download,evaluate_on)' >&2
	@$(MAKE) --no-print-directory $(if $(filter data,$@),download,evaluate_on)

clean: ## remove .venv; results and data stay
	rm -rf $(VENV)
