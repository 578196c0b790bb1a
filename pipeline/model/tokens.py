"""Cache of token ids: dense and pruned models share the work of tokenising the same requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.store.integrity import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = "tokens.parquet"


class Tokens:
    """Remembers the ids of every text that one tokenizer has seen."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, text: str, special: bool | None, encode: Callable[[], list[int]]) -> list[int]:
        """Return the ids of ``text`` with special tokens added or not (None: as the tokenizer does by default)."""
        key = hashlib.blake2b(f"{special}\0{text}".encode(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = encode()
        return self._known[key]

    def save(self, folder: Path) -> None:
        frame = pd.DataFrame({"text": list(self._known), "ids": list(self._known.values())})
        frame.to_parquet(folder / TOKENS, index=False)

    def read(self, folder: Path) -> None:
        """Add the ids saved in a folder to the known ones."""
        frame = pd.read_parquet(folder / TOKENS)
        for text, ids in zip(frame["text"], frame["ids"], strict=True):
            self._known.setdefault(text, ids.tolist())


_SHARED: dict[str, Tokens] = {}


def tokens_of(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Return the cache of this process for tokenizers that make the same tokens; only the last one is kept."""
    key = tokenizer_digest(tokenizer)
    if key not in _SHARED:
        _SHARED.clear()
        _SHARED[key] = Tokens()
    return _SHARED[key]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 16 hex digits, equal for tokenizers that make the same tokens, wherever they were loaded from.

    Covers vocabulary, merges, normaliser, special tokens and everything else of a fast tokenizer except padding and
    truncation, which callers change in use; of a slow one its class, vocabulary and special tokens.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: dict[str, Any] = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
        return digest({"rules": rules, "special": special})
    # Every stage asks, and a large vocabulary takes a second to parse.
    text = backend.to_str()
    key = hashlib.blake2b(f"{special}\0{text}".encode()).digest()
    if key not in _DIGESTS:
        rules = {name: rule for name, rule in json.loads(text).items() if name not in ("padding", "truncation")}
        _DIGESTS[key] = digest({"rules": rules, "special": special})
    return _DIGESTS[key]


_DIGESTS: dict[bytes, str] = {}
