"""Tokens that begin and end text: the one that a tokenizer puts in front, and the one after a document in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that model families put after a document in pretraining.
_ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "<EOS_TOKEN>",
    "[EOS]",
)


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the begin-of-text token that the tokenizer puts in front of text, as a list; empty if it puts none there.

    A short text is tokenised, since attributes such as ``add_bos_token`` do not say so for every tokenizer.
    """
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and list(tokenizer("a").input_ids[:1]) == [begin] else []


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that ends a document, None if there is none.

    That is the ``eos_token`` if its name is one that ends documents. Tokenizers of chat models often have the end of a
    turn there instead: then it is the first such name among their special tokens, or ``eos_token`` if there is none.
    """
    if tokenizer.eos_token in _ENDS:
        return tokenizer.eos_token_id
    special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((special[name] for name in _ENDS if name in special), tokenizer.eos_token_id)


def in_words(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return which special tokens stand in calibration and perplexity text: ``BOS <bos>, documents end with <eos>``."""
    end = end_of_text(tokenizer)
    begins = f"BOS {tokenizer.bos_token}" if opening(tokenizer) else "no BOS"
    return f"{begins}, documents end with {'no token' if end is None else tokenizer.convert_ids_to_tokens(end)}"
