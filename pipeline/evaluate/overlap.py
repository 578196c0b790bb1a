"""The stage that counts the items of a task suite that the calibration text holds."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.calibration.base import load
from pipeline.data.calibration.near_duplicates import near_duplicates
from pipeline.evaluate import ask
from pipeline.prune.stage import CalibrationTokens, continued_of
from pipeline.prune.workbench import Workbench
from pipeline.store.stage import Stage

log = logging.getLogger(__name__)
_COUNTS, _EXAMPLES = "overlap.json", 5


@dataclass
class Overlap(Stage):
    """Items with near-duplicates in the calibration text that was read, whatever its source: how many, and some."""

    bench: Workbench
    name = "overlap"
    version = 2

    def inputs(self) -> dict[str, Any]:
        bench, settings = self.bench, self.bench.settings
        calibration, task = settings.calibration.identity(), settings.task.identity()
        inputs = {"model": bench.model_identity, "calibration": calibration, "task": task, "seed": settings.seed}
        # The model may write other text in another dtype.
        return inputs | ({"dtype": bench.dtype} if settings.calibration.generated else {})

    def build(self, folder: Path) -> None:
        settings = self.bench.settings
        # Two forms of one item are one item.
        items = list(dict.fromkeys(ask.questions(settings.task, settings.seed)))
        found = near_duplicates(self._texts(), items)
        counts = {"items": len(items), "near_duplicates": len(found), "examples": found[:_EXAMPLES]}
        (folder / _COUNTS).write_text(json.dumps(counts, indent=1, ensure_ascii=False), encoding="utf-8")

    def _texts(self) -> list[str]:
        bench = self.bench
        if bench.settings.calibration.generated:
            # What the model has written may hold an item that no prompt does.
            text = bench.once(continued_of)
            rows = [prompt + tokens for prompt, tokens in zip(text.prompts, text.tokens, strict=True)]
        else:
            rows = [row.tolist() for row in load(bench.make(CalibrationTokens).path)]
        return bench.tokenizer.batch_decode(rows, skip_special_tokens=True)


def tell_overlap(folder: Path) -> None:
    """Warn if the calibration text of a job holds items of its tasks, from the folder of the counts."""
    counts = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
    if found := counts["near_duplicates"]:
        log.warning(
            "  %d of the %d items of the tasks are in the calibration text, word for word or nearly so (%r): their "
            "scores are not held out; choose other calibration text, or leave these tasks out",
            found,
            counts["items"],
            counts["examples"][0][:60],
        )
