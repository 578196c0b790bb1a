"""A folder outside of the clone with configuration and a package of the user's own."""

from __future__ import annotations

from pathlib import Path

PRUNER = '''
from dataclasses import dataclass
from typing import ClassVar

from pipeline.prune.base import Pruner
from pipeline.prune.decision import Decision


@dataclass(frozen=True)
class LastBlocks(Pruner):
    """Removes the last blocks but ``kept``."""

    kept: int = 0
    accepts: ClassVar[tuple[str, ...]] = ("units",)
    unit: ClassVar[str] = "block"
    calibrated: ClassVar[bool] = False

    def decide(self, decoder, sparsity, context):
        end = len(decoder.blocks) - self.kept
        return Decision(blocks=tuple(range(end - sparsity.units, end)))
'''
EXPERIMENT = """
# @package _global_
sweep:
  pruner: [last_blocks, magnitude]
sparsity_of: {last_blocks: [1, 2], magnitude: ["2:4", 0.5]}
sparsity: ${sparsity_of.${pruner.name}}
stages: [prune]
"""


def own_folder(place: Path, package: str = "own_package", sparsities: str = "[1, 2]") -> Path:
    """Write a package with a pruner, and ``conf`` with that pruner and an experiment; return the folder of both.

    The package is found where the folder is on ``sys.path``. ``sparsities`` are those of its pruner in the experiment.
    """
    files = {
        f"{package}/__init__.py": "",
        f"{package}/last_blocks.py": PRUNER,
        "conf/pruner/last_blocks.yaml": f"_target_: {package}.last_blocks.LastBlocks\nname: last_blocks\nkept: 1\n",
        "conf/experiment/own.yaml": EXPERIMENT.replace("[1, 2]", sparsities),
    }
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return place
