"""Text from the Hugging Face hub, streamed through the ``datasets`` library: only what is needed is downloaded."""

from __future__ import annotations

import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, ClassVar

from pipeline.calibration.base import CalibrationSet
from pipeline.calibration.text_files import text_of

_OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Seconds until a hub that does not answer counts as unreachable. The library itself would retry for far longer.
_PATIENCE = 5.0
# How often a broken connection is tried again, 5 seconds apart.
_RETRIES = 3
# What a gateway or the hub answers while the hub itself is not there.
_DOWN = (502, 503, 504)


@dataclass(frozen=True)
class HubText(CalibrationSet):
    """The texts in ``field`` of one ``split`` of a hub dataset at a ``revision``.

    ``subset`` is the dataset's configuration; ``data_file`` reads a single file of the dataset instead of all of it.
    """

    dataset: str = ""
    subset: str | None = None
    split: str = "train"
    data_file: str | None = None
    field: str = "text"
    revision: str | None = None

    buffer: ClassVar[int | None] = 10_000

    def documents(self) -> Iterator[str]:
        """The rows as they arrive. Raises ValueError at once without a hub, and if the dataset cannot be read."""
        rows = iter(self._open())
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            # Whatever the network, the hub, decompression or parsing raise means the same to the user.
            except Exception as error:
                raise ValueError(self._unread(error)) from error
            yield text_of(row, self.field, f"dataset {self.dataset}")

    def _open(self) -> Iterable[Mapping[str, Any]]:
        if variable := next((name for name in _OFFLINE if _switched_on(name)), None):
            raise ValueError(self._unavailable(f"{variable} is set"))
        if not hub_answers():
            raise ValueError(self._unavailable(f"{_endpoint()} cannot be reached"))
        import datasets

        # A hub that answers may keep its files where this machine does not reach; twenty retries take minutes.
        datasets.config.STREAMING_OPEN_MAX_RETRIES = datasets.config.STREAMING_READ_MAX_RETRIES = _RETRIES
        try:
            return datasets.load_dataset(
                self.dataset,
                name=self.subset,
                data_files={self.split: self.data_file} if self.data_file else None,
                split=self.split,
                revision=self.revision,
                streaming=True,
            )
        except Exception as error:
            raise ValueError(self._unread(error)) from error

    def _unavailable(self, why: str) -> str:
        return (
            f"calibration {self.name} reads dataset {self.dataset} from the hub, but {why}; offline choices are "
            "calibration=news, or calibration=file calibration.path=FILE"
        )

    def _unread(self, error: Exception) -> str:
        first = (str(error).strip().splitlines() or [""])[0]
        return self._unavailable(f"that failed ({type(error).__name__}: {first})")


def hub_answers() -> bool:
    """Whether the hub answers within seconds, through the proxy if one is set."""
    answers: queue.Queue[bool] = queue.Queue()
    # A thread, since a time limit of a request holds neither for looking up the name nor for all addresses together.
    threading.Thread(target=lambda: answers.put(_answers(_endpoint())), daemon=True).start()
    try:
        return answers.get(timeout=_PATIENCE)
    except queue.Empty:
        return False


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE).close()
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
