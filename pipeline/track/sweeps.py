"""Sweeps that W&B's agents carry out: their configuration, and their creation on the server."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.common.files import write_bytes
from pipeline.track.keys import KL, mean_key

# Possible aims of a sweep: the key in the summary of its runs, and whether more of it is better.
METRICS = {
    "generation": (mean_key("generative"), "maximize"),
    "choice": (mean_key("multiple_choice"), "maximize"),
    "retrieval": (mean_key("retrieval"), "maximize"),
    "perplexity": (mean_key("perplexity"), "minimize"),
    "KL": (KL, "minimize"),
}
METHODS = ("grid", "random", "bayes")


def sweep_config(
    values: Mapping[str, Sequence[Any]], metric: str, method: str, interpreter: str, folders: Sequence[Path] = ()
) -> dict[str, Any]:
    """Return the configuration of a sweep over ``values``, by key of the command line; ``metric`` is one of `METRICS`.

    An agent gives each run one value of each key, as the word ``key=value`` of the command line, and all of them the
    ``folders`` with configuration.
    """
    searched = [f"--config-dir={folder}" for folder in folders]
    name, goal = METRICS[metric]
    return {
        "program": "pipeline/main.py",
        "method": method,
        "metric": {"name": name, "goal": goal},
        "parameters": {
            key: {"values": list(choices)} if len(choices) > 1 else {"value": choices[0]}
            for key, choices in values.items()
        },
        "command": ["${env}", interpreter, "-m", "pipeline.main", *searched, "${args_no_hyphens}"],
    }


def write(path: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration as `wandb sweep` reads it."""
    write_bytes(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())


def create(config: Mapping[str, Any], project: str, entity: str | None) -> str:
    """Create the sweep on the server and return its full name, ``entity/project/id``, as `wandb agent` expects it.

    Raises wandb's error if the server rejects the sweep.
    """
    import wandb

    entity = entity or str(wandb.Api().default_entity)
    with redirect_stdout(io.StringIO()):
        name = wandb.sweep(dict(config), entity=entity, project=project)
    return f"{entity}/{project}/{name}"
