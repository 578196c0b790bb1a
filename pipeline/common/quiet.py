"""Silences libraries. To be called before they are imported, since several read their settings at import."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_NOISY = (
    "transformers",
    "accelerate",
    "lm_eval",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "httpx",
    "urllib3",
    "matplotlib",
)


def quiet_libraries() -> None:
    """Silence library chatter; ``PIPELINE_VERBOSE=1`` in the environment leaves it on."""
    if os.environ.get("PIPELINE_VERBOSE"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Bars of quick work only flicker, and in a log file every bar is noise.
    os.environ.setdefault("TQDM_DELAY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="(torch|transformers|lm_eval|datasets)")
