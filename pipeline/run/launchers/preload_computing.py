"""Further imports of the fork server where jobs will compute: what loads models and asks tasks.

Only the fork server imports this module, after `pipeline.run.launchers.preload`, whose rules hold here, too.
"""

from __future__ import annotations

from pipeline.run.launchers.preload import preload

preload(
    "pipeline.evaluate.by_harness",
    "lm_eval.models.huggingface",
    "transformers.generation.utils",
    "transformers.modeling_utils",
    "datasets",
    "scipy.stats",
)
