"""The cases of contract tests: every pruner, model family, experiment and figure keeps the same contract.

Nothing here loads torch: figures are tested without it.
"""

from __future__ import annotations

from choice import some

from pipeline.config.choices import choices_of, figure_names

# Model types whose structure differs: chained and parallel sublayers, norms in between and on the sum, experts, biases,
# transposed matrices; ENCODERS are those without logits.
ENCODERS = ("bert",)
USUAL = (
    *("bert", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "opt", "phi", "phi3"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
)
FAMILIES = (
    *USUAL,
    # Parallel with a shared norm, low-rank attention, sums in place, two mixers side by side, experts in one parameter,
    # factors, convolutions, norms behind sublayers, linear attention.
    *("cohere", "deepseek_v3", "falcon", "falcon_h1", "gpt_oss", "granite", "lfm2", "olmo2", "qwen3_next"),
)
EXPERIMENTS = choices_of("experiment")
# A random model has no score above chance, of which something could be kept (fig26 to fig28) or lost (fig30); fig10 is
# of several models.
YIELDING = [name for name in EXPERIMENTS if name not in ("fig10", "fig26", "fig27", "fig28", "fig30")]
FAULTS = ("kills", "corruptions", "together", "together_and_killed", "full_disks")

SOME_PRUNERS = some("pruners", choices_of("pruner"))
SOME_EXPERIMENTS = some("experiments", YIELDING)
SOME_FIGURES = some("figures", figure_names())
# What another process gives, byte for byte: the files of a figure, and what others select.
SOME_FILES = some("files of figures", figure_names(), count=1)
SOME_SELECTIONS = some("selections", [name for name in figure_names() if name not in SOME_FILES], count=5)
# A sweep in processes of its own takes ten seconds, and a fault several sweeps.
SOME_FAULTS = some("faults", FAULTS, count=1)
# Estimates of many draws: family, draws, confidence, and how near they are.
SOME_ESTIMATES = some(
    "estimates", [("llama", 1000, 0.0, 0.12), ("llama", 1000, 4.0, 0.12), ("gemma3_text", 1000, 4.0, 0.2)]
)
# On the embedded model, which takes long: what is compared with lm-eval's own command, and pruners at sparsity 0.
LM_EVAL_COMMAND, NOTHING_PRUNED = SCORES_AND_ZERO = ("scores of lm-eval's own command", "nothing is pruned")
SOME_REAL = some("confirmations on the embedded model", SCORES_AND_ZERO, count=1)
SOME_BENCHMARKS = some("benchmarks", ("openbookqa", "commonsense_qa", "social_iqa", "boolq", "nq_open"), count=1)
SOME_PAIRS = some("matched tasks", ("copying", "plurals"), count=1)
# Of each kind of pruner one: masks of weights, with and without calibration, sublayers, blocks, rounding, losses.
SOME_AWAY = some(
    "pruners of models on disk",
    (
        *("wanda", "sparsegpt", "magnitude", "attn_drop", "shortgpt", "rtn", "divergence_blocks", "evolution_mlp"),
        *("dsnot", "wanda_alpha_pruning"),
    ),
)
SOME_UNCHANGED = some("pruners of nothing", ("shortgpt", "wanda"), count=1)
# The dearest tests, by the name in their mark `rotated`: processes, waiting, statistics. Each commit runs half of them.
DEAREST = (
    "Slurm",
    "launcher of a plugin",
    "optuna",
    "jobs that fail",
    "jobs that are stopped",
    "agent of W&B",
    "faults",
    "damaged tables",
    "advice",
    "page of measures",
    "notebook",
    "closed output",
    "intervals of criteria",
    "spread of estimates",
    "code of a model",
    "code tasks of lm-eval",
    "identity of two keys",
    "all units",
    "a million documents",
    "packaged encoder",
    "bytes of the report",
    "bytes of figures",
    "findings",
    "data of the hub",
    "captions",
)
SOME_DEAREST = some("dearest tests", DEAREST, count=len(DEAREST) // 2)
