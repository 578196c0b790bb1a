"""Origins of stored results, from their manifests: what the results were computed with, and what differs from now.

An origin is the value of `pipeline.store.provenance.origin` when an artifact was built. Only facts that can change a
number are compared: the code, Python, the packages that compute, the kinds of processor and GPU; never the name of a
machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# All packages in an origin but safetensors and pyarrow, which only give back what was written.
PACKAGES = ("torch", "transformers", "tokenizers", "lm-eval", "datasets", "accelerate", "gguf", "numpy", "pandas")
_VERSIONS, _MACHINE = ("commit", "Python", *PACKAGES), ("processor", "GPU")
_COMMIT_LETTERS = 7
_NONE = "none"
# Names for people of the artifacts of a role.
_NAMES = {"evaluation": "scores", "dense evaluation": "dense scores"}


def facts_of(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of an origin that can change a number, as text by name; "none" if absent. Empty without one."""
    if not origin:
        return {}
    packages = origin.get("packages") or {}
    commit = str(origin["commit"])[:_COMMIT_LETTERS] if origin.get("commit") else _NONE
    # Each entry is name, memory and driver.
    gpus = sorted({str(gpu).partition(",")[0] for gpu in origin.get("gpus") or ()})
    return {
        "commit": f"{commit} with changes" if origin.get("dirty") else commit,
        "Python": str(origin.get("python") or _NONE),
        **{name: str(packages.get(name, _NONE)) for name in PACKAGES},
        "processor": str(origin.get("processor") or _NONE),
        "GPU": ", ".join(gpus) or _NONE,
    }


def provenance(origins: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the provenance of each artifact of a job (by its role), without absent facts: see `facts_of`."""
    return {
        role: {name: value for name, value in facts_of(origin).items() if value != _NONE}
        for role, origin in origins.items()
    }


def changed_since(origins: Mapping[str, Mapping[str, Any]], now: Mapping[str, Any]) -> str | None:
    """Return one sentence on which of a job's artifacts (by role) had another origin than ``now``, and how, or None.

    ``now`` is the origin of this process. Roles with the same differences are named together.
    """
    present = facts_of(now)
    roles_by_change: dict[tuple[tuple[str, str, str], ...] | None, list[str]] = {}
    for role, origin in origins.items():
        facts = facts_of(origin)
        differing = tuple((name, facts[name], present[name]) for name in facts if facts[name] != present[name])
        if differing or not facts:
            roles_by_change.setdefault(differing if facts else None, []).append(_NAMES.get(role, role))
    if not roles_by_change:
        return None
    parts: list[str] = []
    for change, roles in roles_by_change.items():
        verb = "" if parts else " were computed" if len(roles) > 1 or roles[0].endswith("s") else " was computed"
        parts.append(f"{_listed(roles)}{verb} with {_change(change)}")
    return f"{'; '.join(parts)}: rerun in a new outputs folder to compare"


def differences(origins: Iterable[Mapping[str, Any]]) -> list[str]:
    """List what differs among jobs, one origin each: "transformers 5.20 (3 jobs), 5.23 (1 job)". Empty if all agree."""
    return [told for _, told in _differences(list(origins))]


def shown_together(origins: Iterable[Mapping[str, Any]]) -> str | None:
    """Return one sentence on what differs among jobs that are shown together, one origin each, or None."""
    found = _differences(list(origins))
    if not found:
        return None
    kinds = [
        kind for kind, names in (("versions", _VERSIONS), ("machines", _MACHINE)) if {n for n, _ in found} & {*names}
    ]
    return f"{_listed(kinds)} differ among the jobs shown: {'; '.join(told for _, told in found)}"


def _differences(origins: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return name and description of each fact that is not the same in all origins."""
    facts = [facts_of(origin) for origin in origins]
    found = []
    for name in (*_VERSIONS, *_MACHINE):
        counts = Counter(one.get(name, "not recorded") for one in facts)
        if len(counts) > 1:
            values = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            found.append((name, f"{name} {', '.join(f'{value} ({_jobs(count)})' for value, count in values)}"))
    return found


def _change(change: Sequence[tuple[str, str, str]] | None) -> str:
    if change is None:
        return "unrecorded versions"
    then = _listed([f"{name} {before}" for name, before, _ in change])
    return f"{then} (now {', '.join(after for *_, after in change)})"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count > 1)}"
