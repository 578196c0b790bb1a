"""Models with weights in an installed Python package, as a GGUF file or a checkpoint: no download, no hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from pipeline.common.packages import need, package_file
from pipeline.config.component import speed_only
from pipeline.model.sources.base import Model, load_pretrained, load_tokenizer, local_config
from pipeline.model.sources.source_card import CARD, known
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.integrity import file_digest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class PackagedModel(Model):
    """A GGUF ``file`` in the installed ``package``, converted once to a float32 safetensors checkpoint in the store.

    ``base_model`` is the hub id of the packaged model, ``license`` its licence as the hub writes it: for model cards.
    """

    package: str = ""
    file: str = ""
    base_model: str | None = speed_only(None)
    license: str | None = speed_only(None)

    def identity(self) -> dict[str, Any]:
        self._file()
        return super().identity() | {"release": metadata.version(self.package)}

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        model = load_pretrained(str(self.checkpoint(store).path), dtype)
        self.check_layers(model)
        return model

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        return load_tokenizer(str(self.checkpoint(store).path))

    def config(self, store: Store) -> PretrainedConfig | None:
        converted = store.find(_CHECKPOINT, self.identity())
        return local_config(str(converted.path)) if converted else None

    def card(self) -> dict[str, str]:
        told = {"base_model": self.base_model, "license": self.license}
        return {key: value for key, value in told.items() if value}

    def checkpoint(self, store: Store) -> Artifact:
        """Return the converted checkpoint, made if it is not there."""
        return store.ensure(_CHECKPOINT, self.identity(), self._convert)

    def _convert(self, folder: Path) -> None:
        self._convert_file(self._file(), folder)

    def _convert_file(self, source: Path, folder: Path) -> None:
        # Deferred: a job that finds its results loads no model.
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        options = {"gguf_file": source.name}
        with _parsed_once():
            model = AutoModelForCausalLM.from_pretrained(
                source.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
        # GGUF carries no length limit for the tokenizer, whose warnings are useless without one.
        tokenizer.model_max_length = model.config.max_position_embeddings
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def _file(self) -> Path:
        return package_file(self.package, self.file, f"model {self.name}")


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers parse a GGUF file once.

    It parses it for the configuration, for the weights and for the tokenizer, and maps the names of all tensors anew
    for each module of the model, which is more than half of a conversion.
    """
    import gguf

    names = "GGUFReader", "get_tensor_name_map"
    originals = {name: getattr(gguf, name) for name in names}
    for name, original in originals.items():
        setattr(gguf, name, cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


@dataclass(frozen=True)
class PackagedParts(PackagedModel):
    """A GGUF ``file`` split over several packages: ``parts`` maps each package to its part, in order.

    ``sha256`` is the digest of the whole file.
    """

    parts: dict[str, str] = field(default_factory=dict)
    sha256: str = ""

    def _file(self) -> Path:
        """Return the first part, after checking that all parts are there."""
        return self._pieces()[0]

    def _convert(self, folder: Path) -> None:
        with TemporaryDirectory(dir=folder) as scratch:
            whole = Path(scratch) / self.file
            with whole.open("wb") as file:
                for piece in self._pieces():
                    with piece.open("rb") as source:
                        shutil.copyfileobj(source, file)
            if file_digest(whole) != self.sha256:
                raise ValueError(f"the parts of model {self.name} do not add up to the right file; reinstall them")
            self._convert_file(whole, folder)

    def _pieces(self) -> list[Path]:
        # All that are missing at once: who installs one after the other would be told so four times.
        need(list(self.parts), f"model {self.name}")
        return [package_file(package, file, f"model {self.name}") for package, file in self.parts.items()]


@dataclass(frozen=True)
class PackagedCheckpoint(Model):
    """An ordinary checkpoint directory, ``folder``, inside the installed ``package``, read in place.

    ``base_model`` is the hub id of the packaged model, for model cards.
    """

    package: str = ""
    folder: str = ""
    base_model: str | None = speed_only(None)

    def identity(self) -> dict[str, Any]:
        self._folder()
        return super().identity() | {"release": metadata.version(self.package)}

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        model = load_pretrained(str(self._folder()), dtype)
        self.check_layers(model)
        return model

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        return load_tokenizer(str(self._folder()))

    def config(self, store: Store) -> PretrainedConfig | None:
        return local_config(str(self._folder()))

    def card(self) -> dict[str, str]:
        return known(self._folder() / CARD) | ({"base_model": self.base_model} if self.base_model else {})

    def _folder(self) -> Path:
        return package_file(self.package, f"{self.folder}/config.json", f"model {self.name}").parent
