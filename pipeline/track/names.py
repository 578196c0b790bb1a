"""Names of a run that a user has chosen: in the configuration, else in W&B's own environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = "pruning-representations"
_VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "notes": "WANDB_NOTES",
    "id": "WANDB_RUN_ID",
}


def chosen(wandb: Mapping[str, Any], key: str) -> str | None:
    """Return a name from the node ``wandb`` of a configuration, else from the environment; None without either."""
    return wandb.get(key) or os.environ.get(_VARIABLES[key]) or None


def project_of(wandb: Mapping[str, Any]) -> str:
    """Return the project of a configuration's runs."""
    return chosen(wandb, "project") or PROJECT


def tags_of(wandb: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the user's own tags; the environment has them with commas in between."""
    return tuple(
        wandb.get("tags") or [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
    )


def folder_of_runs(outputs: Path) -> Path:
    """Return the folder of the runs on this disk: ``wandb`` in WANDB_DIR, else in the outputs folder."""
    return Path(os.environ.get("WANDB_DIR") or outputs) / "wandb"
