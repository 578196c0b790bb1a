"""Components: the frozen dataclasses that the config groups build, and the identity that keys are made of."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self


@dataclasses.dataclass(frozen=True)
class Component:
    """Base of every model, pruner, task suite and calibration set.

    Keys of stored results contain the name of the class: see `stable_name`.

    Fields are the whole configuration: what a YAML of the group may set. ``name`` is what tables show. Raise
    ``version`` in a subclass when its results change, so that stored results of the old code are not reused.
    """

    name: str
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Return what results depend on: the class, its version and its fields.

        Left out are ``name``, the speed-only fields, and optional ones at their default.
        """
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "name" and field.metadata.get("identity", True)
        }
        for field in dataclasses.fields(self):
            if field.metadata.get("optional") and getattr(self, field.name) == field.default:
                del fields[field.name]
        return {"type": stable_name(type(self)), "version": self.version, **fields}

    def replicate(self) -> dict[str, Any]:
        """Return the fields that number repetitions of the same thing, by name."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.metadata.get("replicate")}

    def first(self) -> Self:
        """Return the first of these repetitions: the fields that number them are at their defaults."""
        fields = dataclasses.fields(self)
        numbers: dict[str, Any] = {own.name: own.default for own in fields if own.metadata.get("replicate")}
        return dataclasses.replace(self, **numbers)


def stable_name(kind: type) -> str:
    """Return the name of a component's class in keys of results.

    That of this package is its name alone, which stays when the class moves. One of the user's own has its module, so
    that two packages may have classes of the same name.
    """
    own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def speed_only(default: Any) -> Any:
    """Return a dataclass field that changes the speed of a computation, never its result; no key contains it."""
    return dataclasses.field(default=default, metadata={"identity": False})


def optional(default: Any) -> Any:
    """Return a dataclass field that keys contain only where it is not at its default.

    An option that is added to a component later this way leaves stored results where they are.
    """
    return dataclasses.field(default=default, metadata={"optional": True})


def replicate(default: Any) -> Any:
    """Return a dataclass field that numbers repetitions: rows that differ in it alone are replicates."""
    return dataclasses.field(default=default, metadata={"replicate": True})
