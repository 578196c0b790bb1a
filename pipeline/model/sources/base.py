"""Base class of model sources, and loading of checkpoints and tokenizers."""

from __future__ import annotations

import logging
import math
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.config.component import Component, speed_only
from pipeline.config.types import Positive
from pipeline.model import bfloat16
from pipeline.model.activations import free_memory
from pipeline.model.discovery import structure_of
from pipeline.model.memory import in_gib
from pipeline.model.model_types import is_encoder
from pipeline.model.sources.complete import check_complete, check_sizes, is_head
from pipeline.model.sources.folder import CONFIG, check_config, check_folder, read_weights
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model(Component):
    """Loads a language model (or an encoder) and its tokenizer.

    ``layers`` is the number of decoder blocks if it is known beforehand: a wrong sparsity is then refused before
    anything is loaded. It is compared with the loaded model. ``embedding`` says how the model turns a text into one
    vector, for retrieval: see ``pipeline.evaluate.retrieval.embed``. It is not part of the weights' identity.
    """

    layers: Positive | None = None
    embedding: dict[str, Any] | None = speed_only(None)

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        """Load the dense model in evaluation mode on the best device here. Raises ValueError in plain words."""
        raise TypeError(f"model {type(self).__name__} does not define load()")

    def placement(self, store: Store) -> dict[str, Any]:
        """Return options of ``load_pretrained`` that place the weights; none means all on the best device."""
        return {}

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        raise TypeError(f"model {type(self).__name__} does not define tokenizer()")

    def config(self, store: Store) -> PretrainedConfig | None:
        """Return the configuration if it is here, without a download or a conversion, and without code of its own."""
        return None

    def card(self) -> dict[str, str]:
        """Return what is known of the source for a model card: ``base_model`` (its hub id), ``license``."""
        return {}

    def check_layers(self, model: PreTrainedModel) -> None:
        found = len(structure_of(model).blocks)
        if self.layers is not None and found != self.layers:
            raise ValueError(f"model {self.name} has {found} blocks, but its YAML file says layers: {self.layers}")


def device() -> torch.device:
    """Return a CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(name: str) -> torch.dtype:
    """Resolve ``auto`` to bfloat16 where the hardware multiplies more of it at once, else to float32; keep other names.

    Never to float16: the values of a model trained in bfloat16 may not fit in its range.
    """
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    return torch.bfloat16 if bfloat16.is_faster(device()) else torch.float32


def load_pretrained(path: str, dtype: torch.dtype, trusted: bool = False, **options: Any) -> PreTrainedModel:
    """Load a checkpoint with safetensors weights only; its own Python code runs only if it is ``trusted``.

    Raises ValueError that names the directory or the file: for an architecture that the pipeline does not support and
    for files that do not fit each other, before the weights are read; for weights that are missing, left over, or of
    another shape. Raises OSError for a hub that cannot be reached.
    """
    source, values = _checked(path, trusted, options.get("revision"))
    # With a device map, what does not fit goes to disk.
    if not options.get("device_map"):
        check_fits(values * dtype.itemsize, str(dtype).removeprefix("torch."), path)
    with _in_plain_words(path):
        model, loading = source.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trusted,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    check_complete(model, loading, path)
    # Embedding models are often published without an output head, which would then be random.
    model.lacks_head = any(is_head(name) for name in loading["missing_keys"])
    shipped = getattr(model, "generation_config", None)
    if shipped is not None:
        # Some checkpoints ship a repetition penalty or sampling settings, which would change greedy decoding. They go
        # into exports as they came.
        model.shipped_generation = shipped
        model.generation_config = plain_generation(shipped)
    if "offload_folder" in options:
        weakref.finalize(model, shutil.rmtree, options["offload_folder"], ignore_errors=True)
    return (model if options.get("device_map") else model.to(device())).eval()


def plain_generation(shipped: GenerationConfig) -> GenerationConfig:
    """Return the special tokens of a model's generation settings, without the settings that change what it writes."""
    # Deferred, as below: a job that finds its results loads no model.
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=shipped.bos_token_id, eos_token_id=shipped.eos_token_id, pad_token_id=shipped.pad_token_id
    )


def check_fits(needed: int, dtype: str, path: str) -> None:
    """Raise ValueError if weights of so many bytes do not fit into the free memory of the best device here."""
    if needed > (free := free_memory(device())):
        half = "dtype=bfloat16, or " if dtype == "float32" else ""
        raise ValueError(
            f"model {path} takes {in_gib(needed)} of memory in {dtype}, but {in_gib(free)} are free; give {half}"
            "model.device_map=auto, which keeps on disk what does not fit"
        )


def _checked(path: str, trusted: bool, revision: str | None) -> tuple[type[AutoModel | AutoModelForCausalLM], int]:
    """Return the class that loads a checkpoint, after checking all that can be checked beforehand.

    With it comes the number of values that its files hold; 0 where they are not here yet.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig

    folder = Path(path)
    if folder.is_dir():
        facts = check_folder(folder, trusted)
    else:
        facts, _ = PretrainedConfig.get_config_dict(path, revision=revision)
        check_config(facts, f"{path}/{CONFIG}", trusted)
    if not facts.get("model_type"):
        raise ValueError(
            f"{path}/{CONFIG} has no model_type, the name of its architecture; get a fresh copy of the checkpoint"
        )
    with _in_plain_words(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trusted, revision=revision)
    source = AutoModel if is_encoder(config) else AutoModelForCausalLM
    values = 0
    if folder.is_dir():
        weights = read_weights(folder, facts)
        values = weights.values
        # A checkpoint's own code may build any model.
        if not facts.get("auto_map"):
            with _in_plain_words(path), torch.device("meta"):
                skeleton = source.from_config(config)
            check_sizes(skeleton, weights, folder)
    return source, values


def local_config(path: str, revision: str | None = None) -> PretrainedConfig | None:
    """Return the configuration of a checkpoint on this disk, or None: it is not here, is unusable, or brings code."""
    from transformers import AutoConfig

    try:
        if Path(path).is_dir():
            check_folder(Path(path), trusted=False)
        found: PretrainedConfig = AutoConfig.from_pretrained(path, revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:
        log.debug("no configuration of %s: %s", path, error)
        return None
    return found


def writes_text(model: PreTrainedModel) -> bool:
    """Return whether the model has a trained output head: encoders and bare embedding models have none."""
    return not is_encoder(model.config) and not getattr(model, "lacks_head", False)


def load_tokenizer(path: str, trusted: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer; its own Python code runs only if it is ``trusted``.

    A padding token that is missing, or has no row in the model's embedding, becomes the end-of-text token. Raises
    ValueError that names the directory for files without a usable tokenizer, OSError for a hub that cannot be reached.
    """
    from transformers import AutoTokenizer

    facts = check_folder(Path(path), trusted) if Path(path).is_dir() else {}
    rows = facts.get("vocab_size") or math.inf
    with _in_plain_words(path, "the tokenizer of "):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trusted, **options)
        tokenizer.shipped = changed_by_use(tokenizer)
        if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
            tokenizer.pad_token = tokenizer.eos_token
        # A trial call shows defects of the files here, not in the middle of a job.
        ids = tokenizer("A word.", add_special_tokens=False).input_ids
        vocabulary, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
        last = max((number for token, number in vocabulary.items() if token not in added), default=0)
    if not ids:
        raise ValueError(f"the tokenizer of {path} produces no tokens; get a fresh copy of the checkpoint")
    if last >= rows:
        raise ValueError(
            f"the tokenizer of {path} has ids up to {last}, but {CONFIG} says vocab_size: {rows}; it belongs to "
            "another model: get a fresh copy of the checkpoint"
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
        raise ValueError(
            f"the tokenizer of {path} has neither a padding token nor an end-of-text token that the model knows; name "
            "one as eos_token in tokenizer_config.json"
        )
    return tokenizer


def restore_shipped(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer of ``load_tokenizer`` the padding token, padding and truncation that its files came with."""
    restore_use(tokenizer, getattr(tokenizer, "shipped", changed_by_use(tokenizer)))


def restore_use(tokenizer: PreTrainedTokenizerBase, use: tuple[Any, ...]) -> None:
    """Give a tokenizer what ``changed_by_use`` returned of it."""
    pad_token, padding, truncation = use
    tokenizer.pad_token = pad_token
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.enable_padding(**padding) if padding else backend.no_padding()
        backend.enable_truncation(**truncation) if truncation else backend.no_truncation()


def changed_by_use(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """Return the padding token, padding and truncation; every call of a tokenizer may set the last two."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return tokenizer.pad_token, getattr(backend, "padding", None), getattr(backend, "truncation", None)


@contextmanager
def _in_plain_words(path: str, what: str = "") -> Iterator[None]:
    """Turn errors that libraries raise for unusable files within the block into a ValueError that names their place.

    Errors that say nothing about the files pass: a hub or a disk that does not answer, too little memory.
    """
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # Not Exception: the tokenizers library may raise a panic, which does not derive from it.
    except BaseException as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ValueError(
            f"{what}{path} cannot be loaded ({type(error).__name__}: {reason}); its files do not match each other or "
            "this release of transformers: get a fresh copy of the checkpoint"
        ) from error
