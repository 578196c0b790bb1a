"""Text from the Hugging Face hub, streamed through the ``datasets`` library: only what is needed is downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.data.calibration.base import CalibrationSet
from pipeline.data.calibration.text_files import text_of
from pipeline.data.hub import why_unreachable

# Number of retries of a broken connection, 5 seconds apart.
_RETRIES = 3


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
        """Yield the rows' texts as they arrive.

        Raises ValueError at once if the hub is unreachable, and if the dataset cannot be read.
        """
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
        if reason := why_unreachable():
            raise ValueError(self._unavailable(reason))
        import datasets

        # A hub that answers may keep its files where this machine cannot reach them; twenty retries take minutes.
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
            f"calibration {self.name} reads dataset {self.dataset} from the hub, but {why}; these work offline: "
            "calibration=news, or calibration=file calibration.path=FILE"
        )

    def _unread(self, error: Exception) -> str:
        first = (str(error).strip().splitlines() or [""])[0]
        return self._unavailable(f"loading it failed ({type(error).__name__}: {first})")
