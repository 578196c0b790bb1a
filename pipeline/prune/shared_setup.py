"""Set-up that repeated scoring of one model shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

Held = TypeVar("Held")


class SharedSetup:
    """Holds the set-up for a model until its block is left or another model is used."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._model: object = None
        self._held: Any = None

    def once(self, model: object, set_up: Callable[[], AbstractContextManager[Held]]) -> Held:
        """Return the result of ``set_up``, which is called only the first time for a model."""
        if model is not self._model:
            self._close()
            self._held = self._stack.enter_context(set_up())
            self._model = model
        held: Held = self._held
        return held

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._model = self._held = None
        self._stack.close()
