"""``python -m pipeline.run.wandb_sweep`` turns a command line of ``pipeline.main`` into a sweep for W&B's agents."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pipeline.check.command_line import problems
from pipeline.check.notes import notes
from pipeline.common.errors import plain
from pipeline.config.choices import CONF
from pipeline.config.experiment import expand
from pipeline.config.search_path import own_folders, searched
from pipeline.config.synonyms import contradictions, translated
from pipeline.run.arguments import take_folders
from pipeline.track.connection import prepare_import, resolve_mode
from pipeline.track.dashboard import FOLDER
from pipeline.track.names import chosen as chosen_name
from pipeline.track.names import project_of
from pipeline.track.sweeps import METHODS, METRICS, create, sweep_config, write

_MULTIRUN = ("-m", "--multirun")


def values_of(overrides: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each key of a command line: numbers and booleans as such, all else as written there."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.get_key_element(): _values(override) for override in parsed}


def _values(override: Override) -> list[Any]:
    if not override.is_sweep_override():
        return [_plain(override.value(), override.get_value_element_as_str())]
    return [
        _plain(value, text)
        for value, text in zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True)
    ]


def _plain(value: Any, text: str) -> Any:
    """Return a value whose text, after ``key=``, means that value. Hydra's own ``text`` has needless backslashes."""
    if isinstance(value, bool | int | float):
        return value
    try:
        again = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return text
    return value if isinstance(value, str) and again == value else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns exit status 2 if it is bad, 1 if a server rejects the sweep, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.run.wandb_sweep",
        description="Turn a pipeline.main command line into a W&B sweep with one run per combination of values.",
    )
    # For the help: its words are taken before the others.
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with configuration of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value,value", help="as for pipeline.main -m")
    parser.add_argument(*_MULTIRUN, action="store_true", help="accepted but has no effect")
    parser.add_argument("--metric", choices=METRICS, default="generation", help="the metric that the sweep optimizes")
    parser.add_argument("--method", choices=METHODS, default="grid", help="how the next values are chosen")
    parser.add_argument("--offline", action="store_true", help="write the YAML without creating the sweep")
    words, found = take_folders(sys.argv[1:] if arguments is None else arguments)
    chosen: Any = parser.parse_intermixed_args(words)
    overrides = expand(translated(chosen.overrides))
    found += contradictions(chosen.overrides)
    found += [
        f"{word}: a W&B agent runs its jobs one after another; leave it out"
        for word in overrides
        if word.startswith("hydra")
    ]
    if found := found or problems(overrides, multirun=True):
        print("\n".join(f"  - {problem}" for problem in found), file=sys.stderr)
        return 2
    for note in notes(overrides, multirun=True):
        print(f"note: {note}", file=sys.stderr)
    # Deferred: mistakes should be answered at once.
    from pipeline.run.summary import shown

    values = values_of(overrides)
    first = [f"{key}={choices[0]}" for key, choices in values.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("config", overrides=[*first, *searched()])
    python = Path(sys.executable)
    config = sweep_config(values, chosen.metric, chosen.method, shown(python), own_folders())
    path = Path(settings.outputs) / FOLDER / "sweep.yaml"
    write(path, config)
    print(f"sweep   {path}")
    program = shlex.quote(shown(python.with_name("wandb")))
    wandb = dict(settings.wandb)
    return _announce(config, path, program, project_of(wandb), chosen_name(wandb, "entity"), chosen.offline)


def _announce(config: dict[str, Any], path: Path, program: str, project: str, entity: str | None, offline: bool) -> int:
    """Create the sweep if a server can be reached, and print how to start it."""
    connection = resolve_mode("offline" if offline else "auto")
    if connection.mode != "online":
        reason = f" ({connection.reason})" if connection.reason else ""
        print(
            f"not created{reason}; with an API key and network access, run: {program} sweep --project {project} {path}"
        )
        return 0
    prepare_import()
    try:
        name = create(config, project, entity)
    except Exception as error:
        print(f"not created: {plain(error)}; check `wandb login`", file=sys.stderr)
        return 1
    print(f"start as many agents as the machine can hold, each in this folder: {program} agent {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
