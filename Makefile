# Every target is a few plain commands; nothing is hidden here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
CORPUS ?= ../shared/corpora/realclips

.PHONY: demo test test-kills test-slurm test-triton realclips evidence plan lint fuzz soak gpu mutants

$(BIN)/.ready: pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { echo "Python 3.11 or 3.12 is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt --editable '.[test]'
	@$(BIN)/python -m workflow.preflight
	@touch $@

demo: $(BIN)/.ready
	$(BIN)/snakemake --cores $(CORES)
	$(BIN)/snakemake --cores 1 --report results/report.zip --quiet all
	$(BIN)/python -m workflow.digest

test: $(BIN)/.ready
	$(BIN)/python -m pytest

# A SLURM of one node is installed (apt, root) and started; the workflow runs on it through faults.
test-slurm: $(BIN)/.ready
	$(BIN)/python tests/slurm/scenario.py

# The GPU kernels on a CPU, in Triton's interpreter (a CPU build of torch comes without Triton).
TRITON := .triton
$(TRITON)/.ready:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(TRITON) triton==3.9.0
	@touch $@

test-triton: $(BIN)/.ready $(TRITON)/.ready
	PYTHONPATH=$(TRITON) $(BIN)/python -m pytest tests/test_scan_triton.py

# Everything on a GPU, at most eight minutes; GPU_OPTIONS="--quick --device cpu" rehearses it without one.
GPU_OPTIONS ?=
gpu: $(BIN)/.ready
	$(BIN)/python -m benchmarks.gpu $(GPU_OPTIONS)

realclips: $(BIN)/.ready
	$(BIN)/snakemake --cores $(CORES) --configfile presets/realclips.yaml --config media_root='$(CORPUS)'
	$(BIN)/snakemake --cores 1 --configfile presets/realclips.yaml --config media_root='$(CORPUS)' --report results/realclips/report.zip --quiet all
	$(BIN)/python -m workflow.digest --configfile presets/realclips.yaml --media-root '$(CORPUS)'

# Do the partners carry the gain? Three generated corpora, three seeds each; 11 minutes each on 2 cores.
EVIDENCE ?= 1 2 3
evidence: $(BIN)/.ready
	mkdir -p results/evidence
	set -e; for seed in $(EVIDENCE); do at=results/evidence/corpus-$$seed; \
	  printf 'results: %s\nmedia_root: %s/corpus\ndemo: {seed: %s}\n' $$at $$at $$seed > $$at.yaml; \
	  $(BIN)/snakemake --cores $(CORES) evidence --configfile presets/evidence.yaml $$at.yaml; \
	done
	$(BIN)/python -m evaluation.evidence --sets noxi/test noxi-add/test --out-dir results/evidence/table \
	  $(foreach seed,$(EVIDENCE),--corpus corpus-$(seed)=results/evidence/corpus-$(seed)/scores)

# Mutated files through every parser; a finding prints how to replay it.
INPUTS ?= 100000
SEED ?= 0
fuzz: $(BIN)/.ready
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

# kill -9 at random moments, then byte-equal to an undisturbed run (docs/robustness.md).
KILLS ?= 50
soak: test-kills
	$(BIN)/python -m tests.soak --kills $(KILLS) --seed $(SEED)

# The same in small: three kills at random moments and one each in three stages of a study of sound.
test-kills: $(BIN)/.ready
	$(BIN)/python -m pytest -m soak tests/test_soak.py

# Would the tests notice a wrong number? MUTANTS="--only training/losses.py" tries one module.
MUTANTS ?=
mutants: $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt mutmut
	$(BIN)/python -m tests.mutants $(MUTANTS)

CONFIG ?= config.yaml
plan: $(BIN)/.ready
	$(BIN)/python -m workflow.plan --configfile $(CONFIG)

lint: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
