"""A picture and its metadata, as other programs read them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipeline.plot.png import encode


def test_pixels_words_and_size_are_read_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    words = {"Title": "KL", "Description": "Δz · ≤ 1"}
    picture = Image.open(io.BytesIO(encode(pixels, words, 200)))
    assert picture.mode == "RGB" and picture.info["dpi"] == (199.9996, 199.9996)
    np.testing.assert_array_equal(np.asarray(picture), pixels[:, :, :3])
    assert picture.text == words  # type: ignore[attr-defined]
