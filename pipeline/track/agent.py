"""The run that an agent of a W&B sweep asks for, read from the environment of the command that it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AgentRun:
    """Run that the agent has announced to its server, the sweep that it belongs to, and the sweep's own values."""

    run_id: str
    sweep: str
    values: dict[str, Any]


def under_agent() -> bool:
    """Return whether an agent has started this command."""
    return bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))


def agent_run() -> AgentRun | None:
    """Return the run that the agent has asked for, or None for a command that no agent has started.

    Raises OSError if the file with the sweep's values, which the environment names, cannot be read.
    """
    if not under_agent():
        return None
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    return AgentRun(os.environ["WANDB_RUN_ID"], os.environ["WANDB_SWEEP_ID"], _values(Path(path)) if path else {})


def _values(path: Path) -> dict[str, Any]:
    from wandb.sdk.lib.config_util import dict_from_config_file

    if not path.is_file():
        raise FileNotFoundError(f"the agent's file {path} is missing")
    return dict_from_config_file(str(path)) or {}
