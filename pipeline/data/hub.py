"""Checks within seconds that the Hugging Face hub can be reached; its libraries would retry for minutes."""

from __future__ import annotations

import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

_OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Seconds until a hub that does not answer counts as unreachable.
PATIENCE = 5.0
# Status codes of a gateway or the hub while the hub itself is down.
_DOWN = (502, 503, 504)


def why_unreachable() -> str | None:
    """Return why the hub is not used: switched off by a variable, or no answer within seconds. None if it answers."""
    if variable := next((name for name in _OFFLINE if _switched_on(name)), None):
        return f"{variable} is set"
    return None if hub_answers() else f"{_endpoint()} cannot be reached"


def hub_answers() -> bool:
    """Return whether the hub answers within seconds, through the proxy if one is set."""
    answers: queue.Queue[bool] = queue.Queue()
    # A thread, since the time limit of a request covers neither the name look-up nor all addresses together.
    threading.Thread(target=lambda: answers.put(_answers(_endpoint())), daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return False


@contextmanager
def from_cache_only() -> Iterator[None]:
    """Let the hub's libraries read only earlier downloads, and never ask the hub, within the block."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        return error.code not in _DOWN
    except urllib.error.URLError as error:
        # The library may know certificates that this interpreter does not.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, HTTPException, ValueError):
        return False
    return True


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}
