"""Near-duplicates: items of tasks that stand in a text, found by shared n-grams of words.

An item counts if at least half of its n-grams are in the text, where n grows with the length of the item to 8 words.
One changed word therefore hides no long item, and a common phrase does not make one. An item of less than 8 words
must be there as a whole, and one of less than 3 words, such as "43 44", where a line, a sentence or what follows a
colon begins ("Q: 43 44"). In scripts that put no spaces between words, every character counts as a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SHARE = 0.5
_WHOLE, _LONG, _LEAST, _TINY = 8, 32, 4, 3
# Thai and Lao, Burmese, Khmer, kana, and Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ENDS = re.compile(r"[.:;!?)\]>|]+\s|[\n\u3002\uff01\uff1a\uff1b\uff1f]")


def words_of(text: str) -> list[str]:
    """Split a text into words without case and punctuation."""
    return _WORDS.findall(text.casefold())


class WordIndex:
    """N-grams of words of texts, for one n at a time as they are asked for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts)
        self._words = [words_of(text) for text in self._texts]
        self._grams: dict[int, set[tuple[str, ...]]] = {}
        starts = [words_of(part)[:_TINY] for text in self._texts for part in _ENDS.split(text)]
        self._starts = {tuple(start[:n]) for start in starts for n in range(1, _TINY)}

    def holds(self, item: str) -> bool:
        """Return whether a near-duplicate of an item is in the texts. An item without words is nowhere."""
        words = words_of(item)
        if len(words) < _TINY:
            return bool(words) and tuple(words) in self._starts
        n = len(words) if len(words) < _WHOLE else _WHOLE if len(words) >= _LONG else max(_LEAST, len(words) // 4)
        own = _ngrams(words, n)
        return len(own & self._all(n)) >= SHARE * len(own)

    def _all(self, n: int) -> set[tuple[str, ...]]:
        if n not in self._grams:
            self._grams[n] = set().union(*(_ngrams(words, n) for words in self._words))
        return self._grams[n]


def _ngrams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


def near_duplicates(texts: Iterable[str], items: Iterable[str]) -> list[str]:
    """Return the items of which near-duplicates are in the texts, each as often as it is given."""
    index = WordIndex(texts)
    return [item for item in items if index.holds(item)]
