"""``python -m pipeline.bench``: speed as ratios to a baseline in the same process, in lines of ``name value``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.bench.again import again
from pipeline.bench.asking import asking
from pipeline.bench.dropping import evaluating
from pipeline.bench.measuring import measuring
from pipeline.bench.peers.side_by_side import peers
from pipeline.bench.pruning import pruning
from pipeline.bench.ratios import settings_of
from pipeline.common.quiet import quiet_libraries
from pipeline.prune.settings import Settings
from pipeline.store.artifacts import Store

PARTS: dict[str, Callable[[Settings, Store, int], None]] = {
    "pruning": pruning,
    "measuring": measuring,
    "evaluating": evaluating,
    "asking": asking,
    "again": again,
    "peers": peers,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Any configuration override may be given, such as ``model=random``."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bench", description="Speed as ratios to a baseline.")
    parser.add_argument("--repeats", type=int, default=1, help="timed repeats of each pair (default: 1)")
    parser.add_argument("--only", choices=tuple(PARTS), help="one part of the benchmarks (default: all)")
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides (default: 128 calibration sequences of 512)"
    )
    chosen = parser.parse_args(arguments)
    quiet_libraries()
    settings = settings_of("calibration.sequences=128", "calibration.length=512", *chosen.overrides)
    store = Store(Path(settings.outputs))
    for name, run in PARTS.items():
        if chosen.only in (None, name):
            run(settings, store, chosen.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
