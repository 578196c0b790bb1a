"""Begin-of-text in front of perplexity windows and calibration sequences, and what ends a document, by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.config.probes import PROBES, encode
from pipeline.data.calibration.base import CalibrationSet
from pipeline.evaluate.perplexity import HeldOutText, perplexity_row
from pipeline.model.continuations import continued
from pipeline.model.special_tokens import end_of_text, in_words, opening

WORDS = [f"w{number}" for number in range(40)]
SPECIAL = ["<s>", "</s>", "<|im_end|>", "<|im_start|>"]
BOS, EOS, TURN = 40, 41, 42


def make_tokenizer(adds: bool, eos: str = "</s>", template: str | None = None, special=tuple(SPECIAL)):
    """Words, one token each; with ``adds`` the tokenizer puts <s> in front of text."""
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(name, special=True) for name in special])
    if adds:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token=eos, pad_token=eos, chat_template=template
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    size = {"vocab_size": 44, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=24)
    return LlamaForCausalLM(config).double().eval()


def log_p(model, ids: list[int]) -> np.ndarray:
    """(T, V) float64 log-probabilities after each token, from plain transformers."""
    with torch.inference_mode():
        z = model(torch.tensor([ids])).logits[0].numpy()
    return z - z.max(-1, keepdims=True) - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))


def losses_by_hand(model, ids: list[int], begin: list[int], window: int, stride: int) -> list[float]:
    """Every token once, from the first window that reaches it; windows hold ``window`` tokens, ``begin`` among them."""
    room, losses, reached = window - len(begin), [], 0 if begin else 1
    end = room
    while True:
        end = min(end, len(ids))
        part = ids[max(end - room, 0) : end]
        found = log_p(model, begin + part)
        for at in range(reached, end):
            place = len(begin) + at - (end - len(part))
            losses.append(-found[place - 1, ids[at]])
        reached = end
        if end == len(ids):
            return losses
        end += stride


def text_file(tmp_path, documents: int = 1):
    chance = np.random.default_rng(5)
    texts = [" ".join(WORDS[at] for at in chance.integers(1, 40, 70)) for _ in range(documents)]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    return str(path), [[int(word[1:]) for word in text.split()] for text in texts]


@pytest.mark.parametrize(("window", "stride"), [(24, 12), (24, 23), (16, 1), (2, 1)])
@pytest.mark.parametrize("adds", [True, False])
def test_perplexity_has_the_begin_of_text_in_front_of_every_window(model, tmp_path, adds, window, stride):
    path, (ids, more) = text_file(tmp_path, documents=2)
    row = perplexity_row(model, make_tokenizer(adds), HeldOutText(path, "text", 100, window, stride)).iloc[0]
    ids = [*ids, EOS, *more][:100]
    losses = losses_by_hand(model, ids, [BOS] if adds else [], window, stride)
    assert row.n == len(losses) == (100 if adds else 99)
    assert row.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-12)


def test_losses_do_not_lose_small_probabilities_of_a_large_vocabulary():
    class Flat(LlamaForCausalLM):
        def forward(self, ids, **kwargs):
            z = torch.full((*ids.shape, 2**18), -17.0)
            z[..., 0] = 0
            return type("Output", (), {"logits": z[:, -kwargs["logits_to_keep"] :]})

    from pipeline.evaluate.perplexity import window_losses

    flat = Flat(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    for dtype in (torch.float32, torch.bfloat16):
        found = torch.cat(window_losses(flat.to(dtype), torch.zeros(12, dtype=torch.int64), 4, 2))
        expected = np.log1p((2**18 - 1) * np.exp(-17.0))
        assert expected == pytest.approx(0.0108, abs=1e-4)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@dataclass(frozen=True)
class Listed(CalibrationSet):
    texts: tuple[str, ...] = ()

    def documents(self):
        return list(self.texts)


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_calibration_sequences_begin_as_text_does(adds, packing):
    texts = tuple(" ".join(WORDS[at + 1 : at + 1 + size]) for at, size in ((0, 9), (9, 3), (12, 12), (24, 1)))
    tokenizer, whole = make_tokenizer(adds), {(*range(1, 10),), (10, 11, 12), (*range(13, 25),), (25,)}
    length = 6
    count = 4 if packing else 3
    found = [row.tolist() for row in Listed("x", count, length, packing, texts=texts).tokenize(tokenizer)]
    if adds:
        assert all(row[0] == BOS and BOS not in row[1:] for row in found)
        found = [row[1:] for row in found]
    else:
        assert not any(BOS in row for row in found)
    room = length - adds
    if not packing:
        assert {tuple(row) for row in found} == {document[:room] for document in whole if len(document) > 1}
        return
    assert [len(row) for row in found] == [room] * count
    *complete, _ = " ".join(map(str, np.concatenate(found))).split(f" {EOS}")
    assert all(tuple(map(int, part.split())) in whole for part in complete)


def test_a_length_without_room_for_text_is_refused():
    with pytest.raises(ValueError, match="length=1 leaves no room for text .* at least 2"):
        Listed("x", 1, 1, texts=("w1 w2",)).tokenize(make_tokenizer(True))
    assert [row.tolist() for row in Listed("x", 1, 1, texts=("w1 w2",)).tokenize(make_tokenizer(False))] == [[1]]


def test_behaviour_says_what_begins_text_and_attributes_do_not():
    told = make_tokenizer(False)
    told.add_bos_token = True
    assert (opening(make_tokenizer(True)), opening(make_tokenizer(False))) == ([BOS], [])
    assert opening(told) == list(told("a").input_ids[:1] if told("a").input_ids[:1] == [BOS] else [])


@pytest.mark.parametrize(
    ("eos", "special", "expected"),
    [
        ("</s>", SPECIAL, "</s>"),
        # The end of a turn, beside the end of a document.
        ("<|im_end|>", SPECIAL, "</s>"),
        ("<|im_end|>", [*SPECIAL, "<|endoftext|>"], "<|endoftext|>"),
        ("</s>", [*SPECIAL, "<|endoftext|>"], "</s>"),
        # No other is known.
        ("<|im_end|>", ["<s>", "<|im_end|>"], "<|im_end|>"),
    ],
)
def test_documents_end_with_the_end_of_text_rather_than_of_a_turn(tmp_path, eos, special, expected):
    tokenizer = make_tokenizer(False, eos, special=special)
    end = tokenizer.convert_tokens_to_ids(expected)
    assert end_of_text(tokenizer) == end
    path, (first, second) = text_file(tmp_path, documents=2)
    assert HeldOutText(path, "text", 142, 8, 4).ids(tokenizer).tolist() == [*first, end, *second, end]
    (row,) = Listed("x", 1, 71, texts=(" ".join(WORDS[at] for at in first),)).tokenize(tokenizer)
    assert row.tolist() == [*first, end]


TEMPLATE = "{% for turn in messages %}%s<|im_start|> {{ turn['content'] }} <|im_end|> {% endfor %}"


@pytest.mark.parametrize("written", [True, False])
def test_a_chat_template_decides_alone_what_begins_a_prompt(model, written):
    tokenizer = make_tokenizer(True, template=TEMPLATE.replace("%s", "<s> " if written else ""))
    ids = encode(PROBES[-1], tokenizer)
    assert ids.count(BOS) == (1 if written else 0) and ids[0] == (BOS if written else 43)
    chat = continued(model, tokenizer, ["w1 w2"], 3, chat=True).prompts[0]
    assert chat.count(BOS) == (1 if written else 0)
    assert continued(model, tokenizer, ["w1 w2"], 3).prompts[0] == [BOS, 1, 2]
    bare = make_tokenizer(True)
    assert encode(PROBES[-1], bare) == bare(PROBES[-1].prompt).input_ids and encode(PROBES[-1], bare)[0] == BOS


def test_the_log_says_which_special_tokens_stand_in_text():
    assert in_words(make_tokenizer(True)) == "BOS <s>, documents end with </s>"
    assert in_words(make_tokenizer(False)) == "no BOS, documents end with </s>"
