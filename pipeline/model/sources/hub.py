"""Models from the Hugging Face hub or from a directory in its format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.component import speed_only
from pipeline.model.sources.base import Model, load_pretrained, load_tokenizer, local_config
from pipeline.model.sources.source_card import CARD, known
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest, file_digest

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_LARGE = 2**24
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class HubModel(Model):
    """A model at ``path``, a hub id such as ``Qwen/Qwen3-4B`` or a directory; ``revision`` is a branch, tag or commit.

    ``device_map: auto`` spreads the model over GPUs, then memory, then disk; ``max_memory`` says how much of each to
    use, such as ``{0: 20GiB, cpu: 8GiB}``. Weights on disk are brought in for each pass through their block.
    """

    path: str = ""
    revision: str | None = None
    device_map: str | None = speed_only(None)
    max_memory: dict[str, str] | None = speed_only(None)

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            # The same path may hold other files later; large ones are distinguished by size and time.
            facts = [
                [f.name, file_digest(f) if f.stat().st_size < _LARGE else [f.stat().st_size, f.stat().st_mtime_ns]]
                for f in sorted(folder.iterdir())
                if f.is_file()
            ]
            identity["content"] = digest(facts)
        return identity

    @property
    def trusted(self) -> bool:
        """Whether the Python code that comes with the model is run."""
        return False

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        path, revision = os.path.expanduser(self.path), self.revision or "main"
        try:
            model = load_pretrained(path, dtype, self.trusted, revision=revision, **self.placement(store))
        except OSError as error:
            raise ValueError(f"{self._missing()}: {_first_line(error)}") from error
        self.check_layers(model)
        return model

    def placement(self, store: Store) -> dict[str, Any]:
        if self.device_map is None:
            return {}
        if self.device_map not in _MAPS:
            raise ValueError(f"model.device_map={self.device_map} does not exist; choose from {', '.join(_MAPS)}")
        placement: dict[str, Any] = {"device_map": self.device_map, "offload_folder": str(store.private("offload"))}
        if self.max_memory is not None:
            placement["max_memory"] = {int(k) if str(k).isdigit() else k: v for k, v in self.max_memory.items()}
        return placement

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        try:
            return load_tokenizer(os.path.expanduser(self.path), self.trusted, revision=self.revision or "main")
        except OSError as error:
            raise ValueError(f"{self._missing()}: {_first_line(error)}") from error

    def config(self, store: Store) -> PretrainedConfig | None:
        return local_config(os.path.expanduser(self.path), self.revision or "main")

    def card(self) -> dict[str, str]:
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return known(folder / CARD)
        # Deferred: only an export needs it.
        from huggingface_hub import try_to_load_from_cache

        # The card in the local hub cache, if there is one: nothing is downloaded for it.
        copy = try_to_load_from_cache(self.path, CARD, revision=self.revision or "main")
        return (known(Path(copy)) if isinstance(copy, str) else {}) | {"base_model": self.path}

    def _missing(self) -> str:
        return (
            f"model {self.path} cannot be loaded; give model.path a directory with config.json, a tokenizer and "
            "safetensors weights, or a hub id that this machine can reach (model=smollm2 needs no network)"
        )


@dataclass(frozen=True)
class AnyHubModel(HubModel):
    """A model of the user's choice, which may come with Python code; ``trust_remote_code`` lets that run."""

    # A permission decides whether the model is loaded, never its results.
    trust_remote_code: bool = speed_only(False)

    @property
    def trusted(self) -> bool:
        return self.trust_remote_code


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
