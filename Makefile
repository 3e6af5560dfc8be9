# `make demo` and `make test` work on a fresh machine with Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-all test-core lint format docs bench miniature ablations wheel-check clean

demo: $(INSTALLED)
	$(BIN)/bt-multimodal image pretrain --config image/digits

# The fast tests.
test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

# And those that take minutes: many ranks, two hosts, kills.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest

# The method's own tests with the lowest torch that pyproject.toml allows and nothing of the extras.
LOWEST := .venv-lowest/bin
CORE := augmentation_set correlation draws loss loss_variants micro_batches optim projector twins views
test-core:
	test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet . 'torch==2.7.*' 'pytest>=8.3'
	$(LOWEST)/python -m pytest -p no:cacheprovider $(CORE:%=tests/test_%.py)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/loss.py

# Labelled photographs, as in `bt-multimodal image pretrain`; CIFAR-10 in the figures that are given.
SOURCE ?= ../shared/data/cifar10
SEEDS ?= 0 1 2

miniature: $(INSTALLED)
	$(BIN)/python tasks/image_miniature.py --data.source $(SOURCE) --seeds $(SEEDS)

OVER := configs/image/ablations
VIEWS := no_crop no_jitter crop_only
ablations: $(INSTALLED)
	$(BIN)/python tasks/image_miniature.py --data.source $(SOURCE) --seeds
	$(BIN)/bt-multimodal image ablations --base configs/image/ablations_miniature.yaml \
		--out runs/ablations --processes 2 --seeds $(SEEDS) --published $(OVER)/published.csv \
		--ablations $(wildcard $(OVER)/loss_*.yaml $(OVER)/asymmetry_*.yaml $(OVER)_miniature/*.yaml) \
		$(VIEWS:%=$(OVER)/views_%.yaml) $(OVER)/lambd_0.002.yaml $(OVER)/batch_128.yaml $(OVER)/batch_512.yaml

# The wheel: the core alone trains a custom encoder; whole, it opens an exported encoder and has the configs.
wheel-check: $(INSTALLED)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel/log.txt
	$(BIN)/pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -P ../../tests/wheel_check.py whole
	mv build/wheel/site/encoders build/wheel/encoders-out-of-reach
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -P ../../tests/wheel_check.py core

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import torchvision, torchaudio'
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist
