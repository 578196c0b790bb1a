"""Data files of the user's own tasks: a relative path starts from the task file that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask

from pipeline.evaluate.task_data import LOADERS, located

# Arguments of the datasets library that are paths.
_PATHS = ("data_files", "data_dir")


@contextmanager
def data_beside_definitions() -> Iterator[None]:
    """Let lm-eval look for relative data beside the task's file, then in the working directory, within the block."""
    download = ConfigurableTask.download

    def download_beside(task: Any, dataset_kwargs: dict[str, Any] | None = None, **more: Any) -> None:
        source = Path(str((task.config.metadata or {}).get("config_source", "")))
        if source.is_file():
            beside = source.parent
            if task.DATASET_PATH and task.DATASET_PATH not in LOADERS:
                task.DATASET_PATH = located(task.DATASET_PATH, beside)
            if dataset_kwargs:
                paths = {key: _located(dataset_kwargs[key], beside) for key in _PATHS if key in dataset_kwargs}
                dataset_kwargs = {**dataset_kwargs, **paths}
        download(task, dataset_kwargs, **more)

    ConfigurableTask.download = download_beside
    try:
        yield
    finally:
        ConfigurableTask.download = download


def _located(value: Any, beside: Path) -> Any:
    """Apply `located` to a text, or to all texts nested in lists and mappings."""
    if isinstance(value, str):
        return located(value, beside)
    if isinstance(value, Mapping):
        return {key: _located(inner, beside) for key, inner in value.items()}
    return [_located(inner, beside) for inner in value] if isinstance(value, list | tuple) else value
