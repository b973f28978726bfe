# Every target sets up what it needs; nothing is installed twice. `make` alone lists them.
# PYTHON=/path/to/python chooses the interpreter (3.10, 3.11 or 3.12); ARGS="..." is handed on to the program.

PYTHON ?=
ARGS ?=
PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder  # most of the tests' time is graph compilation, which uses one core
TRUE_SIZE = tests/test_shipped_recipes.py tests/detection/test_detection_recipes.py tests/test_libraries_evaluation.py
SHELL := /bin/sh
.SHELLFLAGS := -ec
.DELETE_ON_ERROR:
.PHONY: help demo docs test test-fast test-all test-ascend test-slow test-aarch64 test-oldest lint bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed ## train on handwritten digits, validate, show the results (4 minutes)
	@.venv/bin/python tools/demo.py $(ARGS)

test: .venv/.installed-dev ## the test suite
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest $(PARALLEL) $(ARGS)

test-fast: .venv/.installed-dev ## the tests that need no MindSpore; seconds
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest --fast $(ARGS)

# Every recipe at its true size and the libraries' own evaluations are slow tests that belong to it.
test-all: .venv-all/.installed ## the test suite with all extras: PyTorch, TensorFlow, ONNX Runtime, LiteRT, MindCV
	@PATH="$(CURDIR)/.venv-all/bin:$$PATH" .venv-all/bin/python -m pytest $(PARALLEL) $(ARGS)
	@$(if $(ARGS),,PATH="$(CURDIR)/.venv-all/bin:$$PATH" .venv-all/bin/python -m pytest -m slow $(TRUE_SIZE))

test-ascend: .venv/.installed-dev ## dry runs of jobs on NPUs, on any machine
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -m ascend -n 2 --dist worksteal $(ARGS)

test-slow: .venv/.installed-dev ## the tests that take minutes each
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -m slow $(ARGS)

test-aarch64: .venv/.installed-dev ## the CPU operators built for ARM processors, in an emulator
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || { \
		echo "error: a cross compiler and an emulator are needed" \
			"(Debian, Ubuntu: apt install g++-aarch64-linux-gnu qemu-user)" >&2; exit 1; }
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest tests/test_kernels_builds.py -m slow -k aarch64 $(ARGS)

test-oldest: .venv-oldest/.installed ## the test suite on the oldest versions that pyproject.toml allows
	@PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" .venv-oldest/bin/python -m pytest $(PARALLEL) $(ARGS)

lint: .venv/.installed-dev ## ruff and mypy
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

docs: .venv/.installed-docs ## the documentation site, in docs/_build; a warning fails
	@.venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build $(ARGS)

bench: .venv-all/.installed ## speed beside MindCV, PyTorch, ONNX Runtime and LiteRT; without ARGS kernels of a step too
	@.venv-all/bin/python tools/bench/benchmark.py $(ARGS)
	@$(if $(ARGS),,.venv-all/bin/python tools/bench/launches.py)

clean: ## remove environments, caches and build products (runs and data sets stay)
	@rm -rf .venv .venv-*/ build docs/_build docs/reference/_*.md *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------

# Sets $python to the first usable interpreter, or says in one sentence what is missing.
define choose_python
set -- $(if $(PYTHON),"$(PYTHON)",python3.12 python3.11 python3.10 python3); python=; bare=; \
for candidate in "$$@"; do \
  "$$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || continue; \
  if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$$candidate; break; fi; \
  bare=$${bare:-$$candidate}; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
  echo "error: $$bare cannot make virtual environments: install its venv module" \
    "(Debian, Ubuntu: apt install $${bare##*/}-venv) or choose another Python with make PYTHON=/path/to/python" >&2; exit 1; \
elif [ -z "$$python" ]; then \
  echo "error: Python 3.10, 3.11 or 3.12 is needed and $(or $(PYTHON),none on the PATH) is $(if $(PYTHON),not )one:" \
    "choose it with make PYTHON=/path/to/python" >&2; exit 1; \
fi
endef

# $(call install,FOLDER,LOCK,STAMP,COST): .installed is removed meanwhile, so a folder without it was interrupted and
# is begun again from nothing. Moving keeps its time, by which the other stamps are judged.
define install
@if [ -e $1/.installed ]; then mv $1/.installed $1/.unfinished; \
else $(choose_python); rm -rf $1; "$$python" -m venv $1; : >$1/.unfinished; fi; \
echo "installing $2 into $1 ($4)"; \
$1/bin/python -m pip install -qq --disable-pip-version-check -r $2; \
$1/bin/python -m pip install -qq --disable-pip-version-check --no-deps -e .; \
mv $1/.unfinished $1/.installed; touch $1/$3
endef

.venv/.installed: requirements.txt pyproject.toml
	$(call install,.venv,$<,.installed,once: 900 MB to download and 3 GB on disk; some minutes)

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(call install,.venv,$<,.installed-dev,once: test and lint tools)

.venv/.installed-docs: requirements-docs.txt .venv/.installed-dev
	$(call install,.venv,$<,.installed-docs,once: Sphinx)

.venv-oldest/.installed: requirements-oldest.txt pyproject.toml
	$(call install,.venv-oldest,$<,.installed,once: 900 MB to download and 3 GB on disk; some minutes)

.venv-all/.installed: requirements-all.txt pyproject.toml
	$(call install,.venv-all,$<,.installed,once: 2 GB to download and 6 GB on disk; some minutes)

# --- locks --------------------------------------------------------------------------------------------------------

COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" UV_PYTHON_DOWNLOADS=never .venv-lock/bin/python -m uv pip compile \
	--quiet --universal --python-version 3.10 --annotation-style line pyproject.toml $(ARGS)

lock: ## regenerate requirements*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	@[ -e .venv-lock/.installed ] || { $(choose_python); rm -rf .venv-lock; "$$python" -m venv .venv-lock; \
		.venv-lock/bin/python -m pip install -qq "uv>=0.5"; touch .venv-lock/.installed; }
	@$(COMPILE) -o requirements.txt
	@$(COMPILE) -c requirements.txt --extra dev --extra tensorboard -o requirements-dev.txt
	@$(COMPILE) -c requirements.txt $(patsubst %,--extra %,test tensorboard torch tensorflow onnx litert search ray peers) -o requirements-all.txt
	@$(COMPILE) -c requirements-dev.txt --extra dev --extra tensorboard --extra docs -o requirements-docs.txt
	@$(COMPILE) --resolution lowest-direct --extra test --extra tensorboard -o requirements-oldest.txt
	@grep -v -E '^(nvidia-|cuda-|triton)' requirements-all.txt >lock.partial  # torch's CUDA build pins those itself, its CPU build has none
	@mv lock.partial requirements-all.txt
