"""Sends a sweep's workspace and report to the W&B server. Publishing again changes the same pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.common.files import write_json
from pipeline.track.connection import base_url
from pipeline.track.pages import Shown, report, workspace


def publish(shown: Shown, entity: str, memory: Path) -> dict[str, str]:
    """Publish both pages and return their addresses. ``memory`` is a file of the pages published, by server and sweep.

    Without an ``entity``, the API key's own is used. Raises wandb's error if the server rejects a page.
    """
    import wandb

    entity = entity or str(wandb.Api().default_entity)
    known = _read(memory)
    mine = known.setdefault(f"{base_url()}/{entity}/{shown.project}/{shown.sweep}", {})
    text, view = report(shown, entity), workspace(shown, entity)
    text.id = mine.get("report", "")
    view._internal_name, view._internal_id = mine.get("workspace", ["", ""])
    text.save()
    mine["report"] = text.id
    write_json(memory, known)
    view.save()
    mine["workspace"] = [view._internal_name, view._internal_id]
    write_json(memory, known)
    return {"workspace": str(view.url), "report": str(text.url)}


def _read(memory: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known
