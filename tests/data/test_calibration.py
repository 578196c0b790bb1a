"""Token sequences from texts: what is packed, batched, kept and told apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from helpers import same_sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.data.calibration.base import CalibrationSet, batches, load, save
from pipeline.model.tokens import tokenizer_digest

TEXTS = ("one two three", "", "eins zwei drei vier", "x", "un deux", "\n \n", "uno dos tres cuatro cinco", "é")


@dataclass(frozen=True)
class Listed(CalibrationSet):
    texts: tuple[str, ...] = TEXTS

    def documents(self):
        return list(self.texts)


@dataclass(frozen=True)
class Streamed(CalibrationSet):
    texts: tuple[str, ...] = TEXTS
    buffer: ClassVar[int | None] = 3

    def documents(self) -> Iterator[str]:
        yield from self.texts


def pieces(tokens: list[int], end: int) -> list[tuple[int, ...]]:
    """Tokens split at the end-of-text token."""
    found: list[list[int]] = [[]]
    for token in tokens:
        if token == end:
            found.append([])
        else:
            found[-1].append(token)
    return [tuple(piece) for piece in found]


DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "Z")), max_size=30), max_size=150)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Listed, Streamed]), DOCUMENTS, st.integers(1, 6), st.integers(1, 40), st.booleans(), st.integers(0)
)
def test_tokenizing_gives_exactly_what_was_asked_for_or_says_what_is_missing(
    tokenizer, kind, documents, sequences, length, packing, seed
):
    source = kind("drawn", sequences, length, packing, seed, texts=tuple(documents))
    wanted = [tuple(tokenizer(text).input_ids) for text in documents if text.strip()]
    try:
        found = source.tokenize(tokenizer)
    except ValueError as error:
        enough = sum(len(tokens) + 1 for tokens in wanted) >= sequences * length
        if not packing:
            enough = length > 1 and sum(len(tokens) > 1 for tokens in wanted) >= sequences
        assert not enough
        assert "missing" in str(error) or "too short" in str(error)
        return
    assert len(found) == sequences
    assert all(tokens.dtype == torch.int64 and tokens.ndim == 1 for tokens in found)
    assert all(tokenizer.pad_token_id not in tokens for tokens in found)
    assert same_sequences(found, source.tokenize(tokenizer))
    if packing:
        assert {len(tokens) for tokens in found} == {length}
        *whole, rest = pieces(torch.cat(found).tolist(), tokenizer.eos_token_id)
        for piece in whole:
            wanted.remove(piece)
        assert not rest or any(tokens[: len(rest)] == rest for tokens in wanted)
    else:
        assert all(2 <= len(tokens) <= length for tokens in found)
        unused = [tokens[:length] for tokens in wanted]
        for tokens in found:
            unused.remove(tuple(tokens.tolist()))


def test_documents_without_packing_come_in_shuffled_order_and_follow_the_seed(tokenizer):
    texts = tuple(f"document {number}" for number in range(200))
    source = Listed("listed", sequences=200, packing=False, texts=texts)
    order = [tokenizer.decode(tokens) for tokens in source.tokenize(tokenizer)]
    other = [tokenizer.decode(tokens) for tokens in replace(source, seed=1).tokenize(tokenizer)]
    assert sorted(order) == sorted(other) == sorted(texts)
    assert len({tuple(order), tuple(other), texts}) == 3


def test_a_tokenizer_that_pads_and_cuts_for_others_does_neither_here(tokenizer):
    source = Listed("listed", sequences=3, packing=False, texts=("a long document", "short", "middle one"))
    plain = source.tokenize(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert same_sequences(plain, source.tokenize(tokenizer))


def test_a_stream_is_read_only_as_far_as_needed(tokenizer):
    reads = []

    class Endless(Streamed):
        def documents(self):
            while True:
                reads.append(1)
                yield "some text that never ends"

    assert len(Endless("endless", sequences=100, length=16).tokenize(tokenizer)) == 100
    assert len(reads) < 300


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sequences": 9, "length": 100}, r"has \d+ tokens, but 9 sequences of 100 need 900: \d+ are missing. Lower"),
        ({"sequences": 9, "packing": False}, "has 6 documents of at least 2 tokens.* 3 are missing. Lower .*packing"),
        ({"sequences": 1, "length": 1, "packing": False}, "length=1 is too short .* at least 2"),
    ],
)
def test_too_little_text_says_how_much_is_missing(tokenizer, values, expected):
    with pytest.raises(ValueError, match=expected):
        Listed("listed", **values, texts=(*TEXTS, "six")).tokenize(tokenizer)


# --- batches, save, load -------------------------------------------------------------------------------------------

SEQUENCES = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6).map(torch.tensor), max_size=20)


@given(SEQUENCES, st.integers(1, 5))
def test_batches_hold_every_sequence_once_with_its_equals_the_longest_first(sequences, size):
    found = batches(sequences, size)
    assert all(1 <= len(batch) <= size and batch.dtype == torch.int64 for batch in found)
    lengths = [batch.shape[1] for batch in found]
    assert lengths == sorted(lengths, reverse=True)
    stable = sorted(sequences, key=len, reverse=True)
    assert same_sequences([row for batch in found for row in batch], stable)
    sizes = Counter(len(sequence) for sequence in sequences)
    assert len(found) == sum(math.ceil(count / size) for count in sizes.values()), "as few batches as possible"


@given(sequences=SEQUENCES)
def test_saved_sequences_load_as_they_were(sequences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    save(sequences, folder)
    loaded = load(folder)
    assert [path.name for path in folder.iterdir()] == ["tokens.safetensors"]
    assert same_sequences(loaded, sequences)
    assert all(tokens.dtype == torch.int64 for tokens in loaded)


# --- tokenizer digest ----------------------------------------------------------------------------------------------


def made(vocabulary=("a", "b", "ab"), merges=(("a", "b"),), normalizer=None, **special) -> PreTrainedTokenizerFast:
    rules = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(vocabulary)}, merges=list(merges)))
    if normalizer is not None:
        rules.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=rules, **{"eos_token": "<end>", **special})


def test_tokenizer_digest_is_the_same_wherever_the_tokenizer_came_from_and_however_it_was_used(tokenizer, tmp_path):
    expected = tokenizer_digest(tokenizer)
    for folder in (tmp_path / "here", tmp_path / "there"):
        tokenizer.save_pretrained(folder)
        assert tokenizer_digest(AutoTokenizer.from_pretrained(folder)) == expected
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tokenizer) == expected
    assert len(expected) == 16
    assert int(expected, 16) >= 0


def test_tokenizer_digest_differs_with_everything_that_changes_tokens():
    variants = [
        made(),
        made(vocabulary=("a", "c", "ac"), merges=(("a", "c"),)),
        made(vocabulary=("b", "a", "ab")),
        made(merges=()),
        made(normalizer=normalizers.Lowercase()),
        made(eos_token="<stop>"),
        made(pad_token="<end>"),
    ]
    assert len({tokenizer_digest(variant) for variant in variants}) == len(variants)
    assert tokenizer_digest(made()) == tokenizer_digest(made())


def test_tokenizer_digest_of_a_tokenizer_without_fast_rules():
    class Slow:
        special_tokens_map: ClassVar[dict[str, str]] = {"eos_token": "<end>"}

        def __init__(self, vocabulary):
            self.get_vocab = lambda: vocabulary

    assert tokenizer_digest(Slow({"a": 0})) == tokenizer_digest(Slow({"a": 0})) != tokenizer_digest(Slow({"a": 1}))
