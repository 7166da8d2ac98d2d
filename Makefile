# make demo | test | test-fast | bench | eval | train | build | env | docs | lock | clean | help
#
# Variables, each with its default:
#   PYTHON=            Python of the environment, 3.10 to 3.13 (python3); with a sourced ROS 2, that distribution's own
#   VENV=.venv         folder of the environment
#   PIP_ARGS=          more arguments for pip when it installs PyTorch, such as the index URL of another build
#   CRF=               0: leave out the fully connected CRF, which needs a C++ compiler
#   INPUT=             demo: folder of frames, video or bag; empty: render a flight
#   OUT=               demo, eval: folder for the results; empty: demo_output, evaluation_output
#   RATE=0.2           demo: playback speed; 1: as recorded
#   VIEW=              demo: 1: show the results live in a browser
#   DATASET=davis2016  eval: davis2016, segtrackv2, fbms59, folder, bag, rendered or flights
#   ROOT= SPLIT=       eval: folder and split of the dataset
#   PARAMS=config/cpu.yaml  demo, eval: parameters of the detector
#   ARGS=              bench, eval, train, test: more arguments for the program

VENV ?= .venv
RATE ?= 0.2
DATASET ?= davis2016
PARAMS ?= config/cpu.yaml

# Values reach the shell unchanged, through the environment; none is ever expanded into a command.
VARIABLES := PYTHON VENV PIP_ARGS CRF INPUT OUT RATE VIEW DATASET ROOT SPLIT PARAMS ARGS
$(foreach name,$(VARIABLES),$(eval override $(name) := $$(value $(name))))
export $(VARIABLES)
PROGRAM := "$$VENV/bin/python" scripts/with_args.py ARGS "$$VENV/bin/python" -m

.DEFAULT_GOAL := help
.PHONY: demo test test-fast bench eval train build env packages docs lock check clean help

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@sed -n '/^# Variables/,/^$$/{s/^# \{0,1\}//p}' Makefile

env:  ## Make the environment with all pinned packages, including those for tests and development.
	@scripts/make_env.sh all

packages:
	@scripts/make_env.sh

build: packages  ## Build the package with colcon into install/.
	@scripts/build.sh

demo: build  ## Play a clip through the node; writes overlay video, contact sheet and masks to OUT.
	@scripts/with_install.sh "$$VENV/bin/python" -m moving_object_detector.programs demo \
	  "--out=$${OUT:-demo_output}" "--params=$$PARAMS" "--rate=$$RATE" $$([ "$$VIEW" != 1 ] || echo --view) $${INPUT:+-- "$$INPUT"}

check: env
	@"$$VENV/bin/ruff" check .
	@"$$VENV/bin/ruff" format --check .
	@"$$VENV/bin/mypy"
	@"$$VENV/bin/lint-imports" --no-logo

test: check  ## Run all checks: ruff, mypy, import rules, pytest.
	@"$$VENV/bin/python" scripts/with_args.py ARGS scripts/test.sh "$$VENV/bin/python"

test-fast: check  ## Run the same checks without the tests that are slow or use DDS.
	@OMP_NUM_THREADS=1 $(PROGRAM) pytest -n 2 --dist loadfile -m 'not live and not slow'

bench: packages  ## Time stages and whole frames with every engine, side by side; writes bench.json.
	@$(PROGRAM) moving_object_detector.programs bench --json bench.json

eval: packages  ## Score masks and write a report: make eval DATASET=davis2016 ROOT=FOLDER SPLIT=val OUT=DIR.
	@case " $$ARGS" in *\ --method*|*\ --predict*) PARAMS= ;; esac; \
	$(PROGRAM) moving_object_detector.evaluation.evaluate "--dataset=$$DATASET" $${ROOT:+"--root=$$ROOT"} \
	  $${SPLIT:+"--split=$$SPLIT"} "--out=$${OUT:-evaluation_output}" $${PARAMS:+"--config=$$PARAMS"}

train: packages  ## Train on your own footage: make train ARGS='--config config/train.yaml --set data.root=FOLDER'.
	@$(PROGRAM) moving_object_detector.training.train

docs: packages  ## Regenerate the tables in docs/ and README.md that come from the code.
	@PYTHONPATH=. "$$VENV/bin/python" scripts/make_docs.py

lock:  ## Regenerate requirements/lock.txt with the hashes of all packages; needs uv (pip install uv).
	@scripts/lock.sh

clean:  ## Remove the environment, the build and the caches of the checks; keep results.
	@scripts/make_env.sh remove
	@for folder in build install log; do [ ! -e "$$folder/COLCON_IGNORE" ] || rm -rf "$$folder"; done
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
