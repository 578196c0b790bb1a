"""Checks of one resolved configuration, value by value, without importing anything heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.check.model import check_model, check_sparsity, suite_of
from pipeline.common.packages import absent
from pipeline.config import schema
from pipeline.config.choices import figure_names
from pipeline.config.figures import is_module, module_problems, number_of, unknown_figure
from pipeline.config.objective import LARGER_IS_BETTER, objectives, stage_of
from pipeline.config.probes import read_probes
from pipeline.config.signature import component_problems, declared
from pipeline.data.calibration.prompt_files import read_prompts, too_few
from pipeline.data.calibration.text_files import files_of, kind_of
from pipeline.data.matched.suite import family_problem
from pipeline.measure.extras import extra_problems


def check_components(plain: Mapping[str, Any], missing: Sequence[str]) -> list[str]:
    """Check that each group's node fits the constructor that its ``_target_`` names."""
    found = [problem for group in schema.GROUPS for problem in _component(group, plain[group], missing)]
    # A seed that refers to the root's is reported for the root.
    return [problem for problem in found if f".seed={plain['seed']} " not in problem]


def _component(group: str, node: Any, missing: Sequence[str]) -> list[str]:
    # A name may refer to what is missing.
    unknown = {key.removeprefix(f"{group}.") for key in missing} | ({"name"} if missing else set())
    found = component_problems(group, node, unknown)
    if group == "task" and not found and not missing:
        found += _task(node)
    return found


def _task(node: Mapping[str, Any]) -> list[str]:
    """Return the problems that a suite finds in its own values. Suites are light to import."""
    return suite_of(node)(**{key: value for key, value in node.items() if key != "_target_"}).problems()


def check_job(plain: Mapping[str, Any], incomplete: bool, bad_sparsity: bool) -> list[str]:
    """Return what does not go together in one resolved configuration.

    ``incomplete`` says that mandatory values are missing, ``bad_sparsity`` that the sparsity is already reported.
    """
    found = _root(plain)
    if not bad_sparsity:
        found += check_sparsity(plain)
    if not incomplete:
        found += check_model(plain) + _calibration(plain["calibration"])
    return found


def _root(plain: Mapping[str, Any]) -> list[str]:
    problem = schema.temperatures_problem(plain["measure"]["temperatures"])
    found = [problem] if problem else []
    found += _objective(plain["objective"], plain["stages"])
    found += extra_problems(plain["measure"]["extra"])
    found += _figures(plain["figures"]) + _probes(plain["probes"]) + _perplexity(plain)
    return found + _outputs(plain["outputs"]) + _export(plain) + _wandb(plain["wandb"]["mode"])


def _objective(given: str | Sequence[str] | None, stages: Sequence[str]) -> list[str]:
    """Check that the objectives exist, each once, and that the stages of the job make them."""
    names = objectives(given)
    if len(set(names)) < len(names):
        return [f"objective={','.join(names)} names one of them twice"]
    return [
        f"objective={name} comes from the stage {stage_of(name)}; add it to stages"
        for name in names
        if name in LARGER_IS_BETTER and stage_of(name) not in stages
    ]


def _figures(figures: Sequence[str] | None) -> list[str]:
    """Check that all figures exist. They are given by full name or by number, those of the user's own by module."""
    known = figure_names()
    spellings = [number_of(name) for name in known] + known
    if figures == []:
        return [f"figures is empty; choose from {', '.join(known)}"]
    modules = [item for item in figures or () if is_module(item)]
    absent = [item for item in figures or () if item not in spellings and item not in modules]
    return [
        *(f"figures: {item} does not exist; {unknown_figure(item)}" for item in absent),
        *(f"figures: {problem}" for problem in module_problems(modules)),
    ]


def _probes(path: str | None) -> list[str]:
    try:
        read_probes(path)
    except ValueError as error:
        return [str(error)]
    return []


def _perplexity(plain: Mapping[str, Any]) -> list[str]:
    """Check that the text can be read, that windows overlap, and that the text is not the calibration text."""
    chosen = plain["perplexity"]
    tokens, window, stride, text = (chosen[key] for key in ("tokens", "window", "stride", "text"))
    if tokens is None:
        return []
    found = []
    if not 2 <= window < tokens:
        found.append(f"perplexity.window={window} should be at least 2 and less than perplexity.tokens={tokens}")
    elif not 1 <= stride < window:
        found.append(f"perplexity.stride={stride} should be at least 1 and less than perplexity.window={window}")
    if text == schema.STORIES:
        return found
    path = Path(os.path.expanduser(text))
    if not path.is_file() or kind_of(path) is None:
        found.append(f"perplexity.text={text}: give {schema.STORIES}, or a .txt, .jsonl, .jsonl.gz or .parquet file")
    given = plain["calibration"].get("path")
    if isinstance(given, str) and path.absolute() == Path(os.path.expanduser(given)).absolute():
        found.append(
            f"perplexity.text={text} is the calibration text, which shows nothing about other text; give another"
        )
    return found


def _outputs(outputs: str) -> list[str]:
    if not outputs.strip() or outputs.startswith("~"):
        return [f"outputs={outputs!r}: give the full path of a folder, without ~"]
    return _writable("outputs", Path(outputs))


def _wandb(mode: str) -> list[str]:
    """Check that runs can be made where they were asked for; with auto, a job goes on without one."""
    missing = absent("wandb", "track") if mode in ("online", "offline") else None
    return [f"wandb.mode={mode}: {missing}"] if missing else []


def _writable(key: str, path: Path) -> list[str]:
    above = next((parent for parent in [path, *path.absolute().parents] if parent.exists()), path)
    if above.is_file():
        return [f"{key}={path}: {above} is a file; give a folder"]
    return [] if os.access(above, os.W_OK) else [f"{key}={path} is not writable; give another folder"]


def _export(plain: Mapping[str, Any]) -> list[str]:
    """Check that the export folder is not the model's, and is new, empty, or holds exports already."""
    given = plain["export"]["path"]
    if given is None:
        return []
    path = Path(given).expanduser().absolute()
    if not given.strip():
        return ["export.path is empty; give a folder"]
    if path == Path(str(plain["model"].get("path"))).expanduser().absolute():
        return [f"export.path={path} is the folder that the model is loaded from; give another folder"]
    if path.is_dir() and not (path / "pruning.json").is_file() and any(inside.is_file() for inside in path.iterdir()):
        return [f"export.path={path} contains other files; give a new or empty folder"]
    return _writable("export.path", path)


def _calibration(calibration: Mapping[str, Any]) -> list[str]:
    """Check that a path exists and can be read, that prompts are enough, and that their families exist."""
    try:
        generated = declared(calibration, "generated")
        if isinstance(calibration.get("path"), str):
            files_of(calibration["path"])
        if not generated:
            return []
        if calibration["packing"]:
            return [
                f"calibration.packing=true: calibration={calibration['name']} continues prompts one by one; leave it "
                "out"
            ]
        if "families" in calibration:
            problem = family_problem(calibration["families"])
        else:
            problem = too_few(len(read_prompts(calibration["path"])), calibration["sequences"])
    except ValueError as error:
        return [str(error)]
    return [problem] if problem else []
