# Everything sets up .venv by itself; Python 3.11 or later is all it needs.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
# The tiny network learns the demo's clips by heart; what is left of the loss is the noise of a VAE with
# random weights.
TRAIN = $(BIN)/python -m training.launch --model tiny-16k --shards $(DEMO)/shards/16000 --run $(DEMO)/run \
	--allow-untrained --set steps=120 --set batch=2 --set milestones=80,95 \
	--set checkpoint_every=30 --set ema_profile_every=30

.PHONY: demo test quick soak bench lint clean

.venv/base: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	touch $@

# What the demo needs: torch and what reads the encoders' weights come on top.
.venv/train: .venv/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[train]'
	touch $@

.venv/test: .venv/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	touch $@

# The offline corpus from its metadata and media to a clean manifest, one answer to "why", and shards of
# its features, made by small networks with random weights. Most clips of the corpus have no media, which
# scan, duplicates and extract say with exit code 3. Then a network is trained on the shards, killed as soon
# as its first checkpoint is there, and trained to its end by the same command.
demo: .venv/train
	rm -rf $(DEMO)
	$(BIN)/curate corpus $(DEMO)/metadata
	$(BIN)/curate fetch --from $(DEMO)/metadata --manifests $(DEMO)/manifests > $(DEMO)/fetch.txt
	$(BIN)/curate build --manifests $(DEMO)/manifests > $(DEMO)/build.txt
	$(BIN)/curate scan $(DEMO)/metadata/media --dataset vggsound,audiocaps,clotho,avsync15 --manifests $(DEMO)/manifests > $(DEMO)/scan.txt || test $$? -eq 3
	$(BIN)/curate duplicates --test vggsound,audiocaps,clotho --manifests $(DEMO)/manifests > $(DEMO)/duplicates.txt || test $$? -eq 3
	$(BIN)/curate clean --test vggsound,audiocaps,clotho --name paper --manifests $(DEMO)/manifests > $(DEMO)/clean.txt
	@echo
	@$(BIN)/curate overlaps --test vggsound,audiocaps --format table --manifests $(DEMO)/manifests
	@echo
	@cat $(DEMO)/duplicates.txt
	@echo
	@tail -n 1 $(DEMO)/clean.txt
	@echo
	@$(BIN)/curate blame 4PjEi5fFD6A --manifests $(DEMO)/manifests
	@for rate in 16000 44100; do \
		echo; \
		$(BIN)/features extract --sr $$rate --manifest $(DEMO)/manifests/clean/paper --media $(DEMO)/metadata/media \
			--untrained 0 --tiny --out $(DEMO)/shards/$$rate || test $$? -eq 3 || exit; \
		$(BIN)/features verify $(DEMO)/shards/$$rate --full || exit; \
	done
	@echo
	$(TRAIN) > $(DEMO)/killed.txt 2>&1 & \
		for tick in $$(seq 1800); do test -e $(DEMO)/run/checkpoints/step-00000030 && break; sleep 0.1; done; \
		kill -9 $$!; wait $$!; test $$? -eq 137 || { cat $(DEMO)/killed.txt; exit 1; }
	$(TRAIN) > $(DEMO)/train.txt 2>&1 || { cat $(DEMO)/train.txt; exit 1; }
	@sed -n '/^step 10 of/s/, lr.*//p' $(DEMO)/killed.txt
	@echo "… killed"
	@grep 'goes on at step' $(DEMO)/train.txt
	@sed -n '/^step 120 of/s/, lr.*//p' $(DEMO)/train.txt
	@$(BIN)/python -m training.curve $(DEMO)/run --out $(DEMO)/loss.png
	$(BIN)/python -m training.ema $(DEMO)/run --sigma 0.08 --out $(DEMO)/ema.safetensors
	$(BIN)/python -m training.export $(DEMO)/run --ema 0.05 --out $(DEMO)/weights

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All but gpu and soak, with the number of tests that ran checked at the end.
test: lint
	$(BIN)/pytest -n 2 -m 'not gpu and not soak'

quick: .venv/test
	$(BIN)/pytest -n 2 -m 'not gpu and not soak and not slow'

# The counts the project promises; hours, not minutes.
soak: .venv/test
	$(BIN)/pytest -m soak -s

bench: .venv/test
	$(BIN)/python tests/benchmarks/bench.py
	$(BIN)/python tests/benchmarks/bench_features.py build/bench
	$(BIN)/python tests/benchmarks/bench_training.py build/bench

clean:
	rm -rf .venv $(DEMO) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
