# `make demo` and `make test` work on a fresh machine with Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint format bench miniature ablations wheel-check clean

demo: $(INSTALLED)
	$(BIN)/python tasks/image_pretrain.py fit --config configs/image/digits.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/loss.py

# Labelled photographs, as in tasks/image_pretrain.py; CIFAR-10 in the figures that are given.
SOURCE ?= ../shared/data/cifar10
SEEDS ?= 0 1 2

miniature: $(INSTALLED)
	$(BIN)/python tasks/image_miniature.py --data.source $(SOURCE) --seeds $(SEEDS)

OVER := configs/image/ablations
VIEWS := no_crop no_jitter crop_only
ablations: $(INSTALLED)
	$(BIN)/python tasks/image_miniature.py --data.source $(SOURCE) --seeds
	$(BIN)/python tasks/image_ablations.py --base configs/image/ablations_miniature.yaml \
		--out runs/ablations --processes 2 --seeds $(SEEDS) \
		--ablations $(wildcard $(OVER)/loss_*.yaml $(OVER)/asymmetry_*.yaml $(OVER)_miniature/*.yaml) \
		$(VIEWS:%=$(OVER)/views_%.yaml) $(OVER)/lambd_0.002.yaml $(OVER)/batch_128.yaml $(OVER)/batch_512.yaml

# The wheel alone trains a custom encoder, with neither encoders/ nor tasks/ in reach.
wheel-check: $(INSTALLED)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel/log.txt
	$(BIN)/pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -P ../../tests/wheel_check.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import torchvision, torchaudio'
	touch $@

clean:
	rm -rf .venv build dist
