# Sets up, tests and checks the project in .venv/. `make` alone lists the targets.
#
# Python and its packages are all that is used: no compiler, no accelerator, no model hub.

PYTHON ?= python3
# Once set up for an accelerator, later calls keep to it; .venv/accel remembers.
ACCEL ?= $(or $(shell cat .venv/accel 2>/dev/null),cpu)
# Passed on to pytest: make test ARGS="-k packing -x"
ARGS ?=

IN_VENV := .venv/bin/python
PIP := $(IN_VENV) -m pip --disable-pip-version-check
INSTALL := $(PIP) install --no-build-isolation -c constraints.txt
# A stamp is written last, and removed first: a set-up that stopped half-way leaves none.
STAMP_SETUP := .venv/setup-$(ACCEL).done
STAMP_TEST := .venv/test.done
EXTRA_cpu :=
EXTRA_cuda := [cuda]
EXTRA_tpu := [tpu]

# One line, before anything is downloaded. Written so that a Python 2 can still say it.
define CHECK_PYTHON
import platform, sys
accel = sys.argv[1]
system, machine = platform.system(), platform.machine()
version = "%d.%d" % sys.version_info[:2]
error = ""
if accel not in ("cpu", "cuda", "tpu"):
    error = "ACCEL=%s is not known: use ACCEL=cpu, ACCEL=cuda or ACCEL=tpu" % accel
elif platform.python_implementation() != "CPython" or sys.version_info < (3, 11):
    error = "CPython 3.11 or later is needed, and %s is %s %s: make setup PYTHON=/path/to/python3.11" % (
        sys.executable, platform.python_implementation(), version)
elif (system, machine) not in (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")) or sys.maxsize < 2**32:
    error = "64-bit Linux (x86_64, aarch64) or macOS (arm64) is needed for JAX, and this is %s %s with a %d-bit Python" % (
        system, machine, 64 if sys.maxsize > 2**32 else 32)
elif accel != "cpu" and system != "Linux":
    error = "ACCEL=%s needs Linux, and this is %s: use ACCEL=cpu" % (accel, system)
else:
    try:
        import ensurepip, venv
    except ImportError:
        error = "%s lacks the venv module: install it (Debian, Ubuntu: apt install python%s-venv)" % (
            sys.executable, version)
if error:
    sys.exit("error: " + error)
endef
export CHECK_PYTHON

.PHONY: help setup test test-all test-fast lint quickstart tiny_base
.DEFAULT_GOAL := help

help:
	@echo "make setup [ACCEL=cpu|cuda|tpu] [PYTHON=python3]   make .venv/ with what running needs"
	@echo "make test  [ARGS=\"-k name\"]                        add the test extra to .venv/ and run the tests"
	@echo "make test-all                                      these and long evidence, before a release"
	@echo "make test-fast                                     the tests that take seconds"
	@echo "make quickstart                                    teach a tiny model invented objects, before your eyes"
	@echo "make tiny_base                                     train the tiny model that quickstart starts from (hours)"
	@echo "make lint                                          check style, format and types"

setup: $(STAMP_SETUP)

# The environment is made anew when it was for another accelerator or another Python, or does not start.
$(STAMP_SETUP): setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not found: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON" "$(ACCEL)"
	@rm -f .venv/setup-*.done $(STAMP_TEST)
	@clear=; \
	if [ "$$(cat .venv/accel 2>/dev/null || echo $(ACCEL))" != "$(ACCEL)" ] \
	   || [ "$$($(IN_VENV) -V 2>/dev/null)" != "$$($(PYTHON) -V)" ]; then clear=--clear; fi; \
	$(PYTHON) -m venv $$clear .venv
	@echo $(ACCEL) > .venv/accel
	$(PIP) install -q -c constraints.txt pip setuptools
	$(INSTALL) -q -e ".$(EXTRA_$(ACCEL))"
	@touch $@

$(STAMP_TEST): $(STAMP_SETUP)
	$(INSTALL) -q -e ".[test]"
	@touch $@

test: $(STAMP_TEST)
	$(IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not evidence" $(ARGS)

test-all: $(STAMP_TEST)
	$(IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(STAMP_TEST)
	$(IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

lint: $(STAMP_TEST)
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check -q .
	$(IN_VENV) -m mypy

quickstart: $(STAMP_SETUP)
	@$(IN_VENV) scripts/quickstart.py $(ARGS)

# Every line goes on from where it was stopped. The model that ships is a copy of the last folder.
tiny_base: $(STAMP_SETUP)
	$(IN_VENV) scripts/generate_corpus.py --config=configs/corpus/scenes.py --output=runs/tiny_base/scenes
	test -d runs/tiny_base/start || $(IN_VENV) scripts/init_model.py --output=runs/tiny_base/start --preset=mini \
		--vocab=2048 --max_visual_tokens=16 --text=data_pipeline/corpus/drawn/general.txt \
		--text=runs/tiny_base/scenes/train.jsonl
	$(IN_VENV) scripts/train.py --config=configs/tiny_base.py --workdir=runs/tiny_base/see
	$(IN_VENV) scripts/train.py --config=configs/tiny_base.py:drill --workdir=runs/tiny_base/drill
	test -d runs/tiny_base/hf || $(IN_VENV) scripts/convert_checkpoint.py --source=runs/tiny_base/drill \
		--target=runs/tiny_base/hf --format=hf --dtype=bfloat16
	for split in held_out finding; do for images in given blank; do \
		$(IN_VENV) scripts/evaluate.py --model=runs/tiny_base/hf --benchmark=runs/tiny_base/scenes/$$split.jsonl \
		--output=runs/tiny_base/$$split-$$images --images=$$images --max_new_tokens=16 || exit 1; done; done
