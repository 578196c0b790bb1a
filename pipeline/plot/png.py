"""Encoding of pictures as PNG without filters, which make most figures larger and take longer than the compression."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL.PngImagePlugin import PngInfo, putchunk

LEVEL = 2  # of the compression: pictures are as large as at the levels above, up to 5
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INCH = 0.0254  # metres
# Of the metadata: how many pixels title and caption take at the top and the bottom.
MARGINS = "Margins"


def encode(pixels: np.ndarray, words: Mapping[str, str], dpi: int) -> bytes:
    """Encode a picture without transparency.

    Args:
        pixels: (height, width, 3 or 4) uint8, red, green and blue; a fourth channel is left out.
        words: metadata, by name.
        dpi: pixels per inch.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each begins with 0: it has no filter
    rows[:, 1:] = pixels[:, :, :3].reshape(height, -1)
    info, per_metre = PngInfo(), round(dpi / _INCH)
    for name, text in words.items():
        info.add_text(name, text)
    buffer = BytesIO(_SIGNATURE)
    buffer.seek(0, 2)
    putchunk(buffer, b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    putchunk(buffer, b"pHYs", struct.pack(">2IB", per_metre, per_metre, 1))
    for kind, data, *_ in info.chunks:
        putchunk(buffer, kind, data)
    putchunk(buffer, b"IDAT", zlib.compress(rows.data, LEVEL))
    putchunk(buffer, b"IEND", b"")
    return buffer.getvalue()
