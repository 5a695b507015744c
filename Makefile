# Needs git, GNU make and Python >= 3.11 with venv. Everything else goes into .venv, pinned in requirements.txt.
#
#   PYTHON=...   the interpreter .venv is built with (default: the first Python >= 3.11 found)
#   ARGS=...     further options, e.g. make run ARGS="--seed 1", make test ARGS="-k maximise"
#   JOBS=...     test processes (default 2)

.DEFAULT_GOAL := help
.PHONY: help run test lint format verify lowest cuda optional browser package docs clean FORCE

JOBS ?= 2
VENV_PYTHON := .venv/bin/python
STAMP := .venv/installed

# The stamp holds the directory it was made in: an environment does not survive being moved, nor the removal of
# the interpreter it was built with. Then it is built anew.
BROKEN := $(shell test ! -e $(STAMP) || { test "$$(cat $(STAMP))" = "$$(pwd -P)" && $(VENV_PYTHON) -c ''; } \
	>/dev/null 2>&1 || echo yes)

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{ printf "%-13s %s\n", $$1, $$2 }'

run: $(STAMP) ## train the default network on the bundled images
	@$(VENV_PYTHON) -m pmp_ref train $(ARGS)

test: lint ## lint, check types, run the tests
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(JOBS) $(ARGS)

lint: $(STAMP) ## ruff and mypy
	@$(VENV_PYTHON) -m ruff check --output-format concise .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy pmp_ref verification

format: $(STAMP) ## rewrite the sources as ruff formats them
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

verify: $(STAMP) ## check the theory numerically (short form)
	@$(VENV_PYTHON) -m verification --quick $(ARGS)

# Not there: the documentation (its tools are pinned apart) and what measures or repeats other tests at length.
LOWEST_WITHOUT := docs verification convergence performance loss_reduction maximum_principle hardening backend_docs \
	experiments

lowest: $(STAMP) ## run the tests with the lowest supported version of every dependency
	@test -e .venv/lowest/bin/python || $(VENV_PYTHON) -m venv .venv/lowest
	@$(VENV_PYTHON) -m verification.hardening lowest > .venv/lowest/requirements.txt
	@.venv/lowest/bin/python -m pip install -qq --disable-pip-version-check -r .venv/lowest/requirements.txt
	@OPENBLAS_NUM_THREADS=1 .venv/lowest/bin/python -m pytest -n $(JOBS) -p no:cacheprovider \
		$(foreach name,$(LOWEST_WITHOUT),--ignore-glob='tests/test_$(name)*') $(ARGS)

# What takes CuPy's arrays. The CUDA that computes on the CPU is built in .venv/cuda-on-cpu, in two minutes, once.
CUDA_TESTS := cuda_on_cpu kernels_cuda kernels_replay layout backend_fused backend_gpu_sweep backend_synchronisation \
	backends_agree backend_libraries backend_command stages loss regulariser admissible metric sweep bsqh problem pixels

cuda: $(STAMP) ## run CuPy's part of the tests, over a CUDA that computes on the CPU
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m verification.cuda_on_cpu -- python -m pytest -n $(JOBS) \
		-p no:cacheprovider --backend cupy $(CUDA_TESTS:%=tests/test_%.py) $(ARGS)

# What takes PyTorch's and JAX's arrays; JAX compiles each operation anew for each shape, so it has fewer files.
TORCH_TESTS := backends_agree backend_libraries backend_gpu_sweep backend_synchronisation backend_docs layout stages \
	loss regulariser admissible metric sweep problem network performance pixels
JAX_TESTS := backends_agree backend_libraries layout stages metric
OPTIONAL := OPENBLAS_NUM_THREADS=1 .venv/optional/bin/python -m pytest -n $(JOBS) -p no:cacheprovider

optional: $(STAMP) ## run the tests of PyTorch, JAX, ONNX, MPI and scikit-learn
	@test -e .venv/optional/bin/python || $(VENV_PYTHON) -m venv .venv/optional
	@.venv/optional/bin/python -m pip install -qq --disable-pip-version-check -r requirements-optional.txt
	@$(OPTIONAL) --backend torch $(TORCH_TESTS:%=tests/test_%.py) $(ARGS)
	@$(OPTIONAL) --backend jax.numpy $(JAX_TESTS:%=tests/test_%.py) $(ARGS)
	@$(OPTIONAL) tests/test_app_compact.py -k onnx $(ARGS)
	@$(OPTIONAL) tests/test_ranks.py tests/test_app_ranks.py $(ARGS)
	@$(OPTIONAL) tests/test_interop_onnx.py tests/test_interop_torch.py $(ARGS)
	@$(OPTIONAL) tests/test_estimator.py $(ARGS)
	@$(OPTIONAL) tests/test_docs_code.py -k need_more $(ARGS)
	@$(OPTIONAL) tests/test_docs_notebooks.py $(ARGS)

browser: $(STAMP) ## build the documentation and look at every page in Chromium
	@$(VENV_PYTHON) -m pytest -m browser -p no:cacheprovider $(ARGS)

package: $(STAMP) ## build sdist and wheel, install the wheel elsewhere, train and read data there
	@$(VENV_PYTHON) -m verification.hardening package

docs: $(STAMP) ## build the documentation, docs/_build/html/index.html
	@$(VENV_PYTHON) -m sphinx -q -E -W --keep-going -b html -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove the environment, caches and build outputs; runs/ stays
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist pmp_ref.egg-info docs/_build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that works is brought up to date; any other is replaced. The stamp is written last.
$(STAMP): pyproject.toml requirements.txt docs/requirements.txt $(if $(BROKEN),FORCE)
	@set -eu; \
	new_enough() { "$$@" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
	if [ -n '$(BROKEN)' ] || ! new_enough $(VENV_PYTHON) || ! $(VENV_PYTHON) -m pip --version >/dev/null 2>&1; then \
		python=; \
		if [ -n "$${PYTHON:-}" ]; then \
			if new_enough "$$PYTHON"; then python=$$PYTHON; fi; \
		else \
			for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
				if new_enough "$$name"; then python=$$name; break; fi; \
			done; \
		fi; \
		if [ -z "$$python" ]; then \
			echo "error: pmp_ref needs Python >= 3.11, and $${PYTHON:-python3} is" \
				"$$("$${PYTHON:-python3}" --version 2>/dev/null || echo 'not there')." \
				"Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
			exit 2; \
		fi; \
		if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
			echo "error: $$python comes without the module venv." \
				"Install it (on Debian and Ubuntu: apt install python3-venv)." >&2; \
			exit 2; \
		fi; \
		echo "Creating .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv; \
	fi; \
	rm -f $(STAMP); \
	echo "Installing the pinned requirements into .venv (about a minute)"; \
	if ! { $(VENV_PYTHON) -m pip install -qq --disable-pip-version-check --requirement requirements.txt \
		&& $(VENV_PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .; }; then \
		echo "error: the installation failed, see above. The next make tries again." >&2; \
		exit 2; \
	fi; \
	pwd -P > $(STAMP)
