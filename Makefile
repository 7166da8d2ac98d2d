# make demo | test | bench | eval | train | train-smoke | bench-train | build | env | clean | help
#
# Variables, each with its default:
#   PYTHON=python3     makes the environment; 3.10 to 3.13, with a sourced ROS 2 that distribution's own
#   PIP_ARGS=          more arguments for pip, such as an index with another build of PyTorch
#   CRF=1              0: do without the CRF refinement, which needs a C++ compiler
#   INPUT=             demo: folder of frames, video or bag; without it a scene is rendered
#   OUT=               demo, eval: folder for the results; without it demo_output, evaluation_output
#   RATE=0.2           demo: speed of playing; 1 is as recorded
#   VIEW=              demo: 1 shows it live in a browser
#   DATASET=davis2016  eval: davis2016, segtrackv2, fbms59, folder, bag or rendered
#   ROOT= SPLIT=       eval: where the data is, and which part of it
#   PARAMS=config/cpu.yaml  demo, eval: parameters of the detector
#   ARGS=              bench, eval, train, train-smoke, bench-train: more arguments for the program

PYTHON ?= python3
VENV ?= .venv
RATE ?= 0.2
DATASET ?= davis2016
PARAMS ?= config/cpu.yaml
ROS := $(if $(ROS_DISTRO),sourced,wheels)

# One stamp for each kind of environment: a shell with ROS sourced and one without do not share one.
STAMP := $(VENV)/.made-with-ros-$(ROS)$(if $(ROS_DISTRO),-$(ROS_DISTRO))
REQUIREMENTS := $(wildcard requirements/*.txt) scripts/make_env.sh
SOURCES := package.xml setup.py setup.cfg $(shell find moving_object_detector launch config models resource -type f \
  -not -name '*.pyc' 2>/dev/null)
INSTALLED := install/.built
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: demo test bench eval train train-smoke bench-train build env clean help

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@sed -n '/^# Variables/,/^$$/{s/^# \{0,1\}//p}' $(MAKEFILE_LIST)

env: $(STAMP)  ## Make the environment with the pinned packages.

$(STAMP): $(REQUIREMENTS)
	@PIP_ARGS='$(PIP_ARGS)' CRF='$(CRF)' scripts/make_env.sh '$(PYTHON)' '$(VENV)' '$(ROS)'
	@touch $@

build: $(INSTALLED)  ## Build the package with colcon into install/.

# python -m colcon: the interpreter that builds is the one that the installed programs start with.
$(INSTALLED): $(STAMP) $(SOURCES)
	@$(BIN)/python -m colcon --log-level error build --packages-select moving_object_detector --event-handlers console_direct-
	@touch $@

demo: $(INSTALLED)  ## Play a clip through the real node; leaves overlay, contact sheet and masks in OUT.
	@scripts/with_install.sh $(BIN)/python -m moving_object_detector.nodes.demo --out '$(or $(OUT),demo_output)' --params '$(PARAMS)' --rate '$(RATE)' \
	  $(if $(filter 1,$(VIEW)),--view) $(if $(INPUT),'$(INPUT)')

test: $(STAMP)  ## Run all checks: ruff, mypy, import rules, pytest.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest

bench: $(STAMP)  ## Time every engine, stage and whole frames, side by side; writes bench.json and bench.png.
	@$(BIN)/python -m moving_object_detector.tools.bench --json bench.json --plot bench.png $(ARGS)

eval: $(STAMP)  ## Score masks, with a report: make eval DATASET=davis2016 ROOT=FOLDER SPLIT=val OUT=DIR.
	@$(BIN)/python -m moving_object_detector.evaluation.evaluate --dataset '$(DATASET)' \
	  $(if $(ROOT),--root '$(ROOT)') $(if $(SPLIT),--split '$(SPLIT)') --out '$(or $(OUT),evaluation_output)' \
	  $(if $(findstring --method,$(ARGS)),,--config '$(PARAMS)') $(ARGS)

train: $(STAMP)  ## Train on your own footage: make train ARGS='--config config/train.yaml data.root=FOLDER'.
	@$(BIN)/python -m moving_object_detector.training.train $(ARGS)

train-smoke: $(STAMP)  ## Train for a minute on rendered clips and check that both players learn.
	@$(BIN)/python -m moving_object_detector.training.smoke $(ARGS)

bench-train: $(STAMP)  ## Print samples per second and the wait for data of each stage of the training.
	@$(BIN)/python -m moving_object_detector.training.bench --json bench_train.json $(ARGS)

clean:  ## Remove what was built and measured, and the environment.
	rm -rf build install log $(VENV) demo_output evaluation_output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
