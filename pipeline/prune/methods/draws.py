"""Random numbers that follow from what they are for, and from nothing else."""

from __future__ import annotations

import json
from hashlib import blake2b

import torch


def generator(*purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose numbers are the same for the same purpose, and independent of those for any other.

    Seeds that lie next to each other give unrelated numbers, and so do the words of one purpose in another order.
    """
    digest = blake2b(json.dumps(purpose).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))
