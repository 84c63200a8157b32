# make demo          download the published weights if possible, and run all scripts on the sample video
# make test          run the linters and all tests
# make bench         run the benchmarks
# make bench-direct  run the benchmarks of direct mode
# make test-ffmpeg   run all tests that involve ffmpeg with several versions of it, and print a table of scores;
#                    FFMPEG_TESTS="tests/steps/test_parity.py" selects tests
#
# Each target first creates .venv with the pinned requirements. Variables:
#   PYTHON=python3.12    another Python, 3.10 or newer
#   PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"    smaller torch without CUDA

PYTHON = python3
VENV = .venv
PIP_FLAGS =
RUN = $(VENV)/bin/python
SAMPLE = --videofile data/sample.mp4 --reference sample --data_dir data/work
CONNECT_SECONDS = 5

# Versions of the package imageio-ffmpeg, with ffmpeg 4.2.2, 7.0.2 and 9.0.2 on Linux, and Debian's 5.1 if installed
FFMPEG_PACKAGES = 0.5.1 0.6.0 0.8.1
SYSTEM_FFMPEG = $(wildcard /usr/bin/ffmpeg)
FFMPEGS = $(SYSTEM_FFMPEG) $(abspath $(FFMPEG_PACKAGES:%=$(VENV)/ffmpegs/%))
FFMPEG_TESTS = tests/media tests/steps tests/faces tests/sync/test_clip_score.py tests/training/test_make_sample.py \
	tests/filter/test_videos.py
FFMPEG_VIDEOS = data/sample.mp4

.PHONY: demo test lint bench bench-direct install clean test-ffmpeg

demo: $(VENV)/requirements
	@echo "== Published weights and demo clip (for the reference's own numbers)"
	@SYNCNET_TIMEOUT=$(CONNECT_SECONDS) sh download_model.sh || \
		echo "== Not downloaded: going on with the starter weights in data/starter"
	@echo "== data/sample.mp4, made by training/face/make_sample.py: two people, one talks; then a cut to the other"
	$(RUN) run_pipeline.py $(SAMPLE)
	$(RUN) run_syncnet.py $(SAMPLE)
	$(RUN) run_visualise.py $(SAMPLE)
	@echo "== Results: data/work/pywork/sample/scores.json, offsets.txt; data/work/pyavi/sample/video_out.avi"
	@cat data/work/pywork/sample/offsets.txt
	@if [ -f data/example.avi ] && [ -f data/syncnet_v2.model ]; then \
		echo "== data/example.avi: the published weights give AV offset 3, Min dist 5.353, Confidence 10.021"; \
		$(RUN) demo_syncnet.py --videofile data/example.avi --tmp_dir data/work/pytmp; \
	else \
		echo "== No demo on data/example.avi: it or data/syncnet_v2.model is missing (sh download_model.sh fetches both)"; \
	fi

test: lint
	$(RUN) -m pytest

lint: $(VENV)/requirements-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy

bench: $(VENV)/requirements
	$(RUN) -m benchmarks.networks
	$(RUN) -m benchmarks.stages
	$(RUN) -m benchmarks.processes
	$(RUN) -m benchmarks.filter

bench-direct: $(VENV)/requirements
	$(RUN) -m benchmarks.direct
	$(RUN) -m benchmarks.truth
	$(RUN) -m benchmarks.correction
	$(RUN) -m benchmarks.lag_error
	$(RUN) -m benchmarks.agreement
	$(RUN) -m benchmarks.bias
	$(RUN) -m benchmarks.speakers

test-ffmpeg: $(VENV)/requirements-dev $(FFMPEG_PACKAGES:%=$(VENV)/ffmpegs/%)
	@for ffmpeg in $(FFMPEGS); do \
		program=$$(ls $$ffmpeg/imageio_ffmpeg/binaries/ffmpeg-* 2>/dev/null || echo $$ffmpeg); \
		echo "== $$program"; \
		SYNCNET_FFMPEG=$$program $(RUN) -m pytest -q $(FFMPEG_TESTS) || exit 1; \
	done
	$(RUN) -m benchmarks.ffmpeg_versions $(FFMPEGS) --videos $(FFMPEG_VIDEOS)

$(VENV)/ffmpegs/%: | $(VENV)/bin/pip
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target $@ imageio-ffmpeg==$*

install: $(VENV)/requirements-dev

$(VENV)/requirements: requirements.txt | $(VENV)/bin/pip
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.txt
	@touch $@

$(VENV)/requirements-dev: requirements-dev.txt $(VENV)/requirements
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements-dev.txt
	@touch $@

# pip is installed last, so without it the environment is incomplete
$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "make: no $(PYTHON): install Python 3.10 or newer, or name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || \
		{ echo "make: $(PYTHON) is too old, 3.10 or newer is needed: name another one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
		{ echo "make: $(PYTHON) lacks venv: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) data/work .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
