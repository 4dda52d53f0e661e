# Two commands matter: `make demo` and `make test`. Each makes .venv on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# TORCH=cpu: PyTorch's own build without CUDA; the pin is the same, and PyPI's Linux build brings
# 3.8 GB of CUDA along
CPU_LINKS ?= https://download.pytorch.org/whl/cpu/torch/ https://download.pytorch.org/whl/cpu/torchvision/
LINKS := $(if $(filter cpu,$(TORCH)),$(CPU_LINKS:%=--find-links %))
# torch's threads sleep while they wait: spinning ones starve whatever else runs (25 times slower
# beside one busy process on two cores)
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help demo test test-notebooks test-quick test-all fuzz lab install lint hooks clean-venv

help:
	@echo "make demo      train four folds on generated cities, score them, draw the map"
	@echo "make test      run the notebooks' assertions and the tests"
	@echo "make test-all  the slow tests too"
	@echo "make fuzz      damaged files for every reader, ten minutes: EXAMPLES=200 SEED=0"
	@echo "make lab       open JupyterLab in nbs/"
	@echo "make lint      ruff; notebooks clean and exported"
	@echo "make hooks     git merges and shows notebooks cell by cell in this clone"
	@echo "Each installs into .venv on first use. TORCH=cpu behind the first one: PyTorch without"
	@echo "CUDA, less than half the size."

# nbdev-export writes pyproject.toml again, unchanged: what it says counts, not when it was written
INSTALLED := .venv/.installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-12)

install: $(INSTALLED)

$(INSTALLED):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, not %d.%d: make demo PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv .venv
	@echo "Installing some 220 packages into .venv: a few minutes."
	@$(BIN)/python scripts/install.py $(LINKS) --constraint constraints.txt --editable ".[all]"
	@rm -f .venv/.installed*
	@touch $@

demo: install
	$(BIN)/spacenet5 pipeline --preset demo

# notebooks beside tests: one core runs the tests, the others notebooks, a thread each
CORES := $(shell getconf _NPROCESSORS_ONLN)
test-notebooks test-quick: export OMP_NUM_THREADS = 1

test: install
	@$(MAKE) --no-print-directory --jobs=2 test-notebooks test-quick

test-notebooks: install
	$(BIN)/nbdev-test --n-workers $$(($(CORES) > 2 ? $(CORES) - 1 : 1))

test-quick: install
	$(BIN)/pytest -m "not slow" --durations=10

test-all: test
	$(BIN)/pytest -m slow --durations=10

EXAMPLES ?= 200
SEED ?= 0
fuzz: install
	$(BIN)/python -m tests.fuzz --examples $(EXAMPLES) --seed $(SEED)

lab: install
	@$(BIN)/jupyter labextension disable "@jupyterlab/apputils-extension:announcements"   # no question about news at the first start
	cd nbs && ../$(BIN)/jupyter lab

lint: install
	$(BIN)/ruff check
	.ci/notebooks

# read by git alone, in this clone's .git/config; .gitattributes says which files they are for
hooks: install
	git config merge.jupyternotebook.name "nbdev: conflicts become cells"
	git config merge.jupyternotebook.driver "$(BIN)/nbdev-merge %O %A %B %P"
	git config diff.jupyternotebook.command $(BIN)/nbdev-diff-driver
	git config blame.ignoreRevsFile .git-blame-ignore-revs

clean-venv:
	rm -rf .venv
