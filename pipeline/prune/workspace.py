"""What scoring a model again and again sets up once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

Held = TypeVar("Held")


class Workspace:
    """Holds what was set up for a model, until it is left or another model is asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._model: object = None
        self._held: Any = None

    def once(self, model: object, set_up: Callable[[], AbstractContextManager[Held]]) -> Held:
        """What ``set_up`` gave for the model the first time."""
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
