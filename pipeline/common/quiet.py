"""Silences libraries: in the whole process, before they are imported, or in a block, after which all is as before."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_VERBOSE = "PIPELINE_VERBOSE"
_HARNESS = "lm_eval"
_NOISY = (
    "transformers",
    "accelerate",
    _HARNESS,
    "datasets",
    "evaluate",
    "huggingface_hub",
    "httpx",
    "urllib3",
    "matplotlib",
)


def quiet_libraries() -> None:
    """Silence library chatter; ``PIPELINE_VERBOSE=1`` in the environment leaves it on.

    To be called before the libraries are imported, since several read their settings at import.
    """
    if os.environ.get(_VERBOSE):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Bars of quick work only flicker, and in a log file every bar is noise.
    os.environ.setdefault("TQDM_DELAY", "1")
    # Bars that have ended leave the screen to results. tqdm takes any text for yes, and none for no.
    os.environ.setdefault("TQDM_LEAVE", "")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    for name in _NOISY:
        _only_errors(name)
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="(torch|transformers|lm_eval|datasets)")


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Silence lm-eval within the block, as `quiet_libraries` does; a level that the caller has set for it stays."""
    logger = logging.getLogger(_HARNESS)
    if logger.level != logging.NOTSET or os.environ.get(_VERBOSE):
        yield
        return
    _only_errors(_HARNESS)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


def _only_errors(name: str) -> None:
    logging.getLogger(name).setLevel(logging.ERROR)
