"""The package: what its wheel holds, where an installed one finds its configuration, its pins within its ranges."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from pipeline.common.packages import absent
from pipeline.config.choices import CONF, PACKAGE

ROOT = CONF.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_and_its_configuration(installed):
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    wanted = {f"pipeline/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*") if path.is_file()}
    wanted |= {f"pipeline/conf/{path.relative_to(CONF).as_posix()}" for path in CONF.rglob("*.yaml")}
    assert {name for name in wanted if "__pycache__" not in name} <= there
    assert "pipeline/py.typed" in there
    assert {name.partition("/")[0] for name in there if ".dist-info" not in name} == {"pipeline"}


def test_an_installed_package_finds_its_configuration(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def run(*words):
        line = [sys.executable, "-m", "pipeline.main", *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run("--version").stdout.startswith(f"pruning-representations {PROJECT['version']}, Python ")
    refused = run("pruner=wandaa", f"outputs={installed / 'pipeline' / 'outputs'}")
    assert refused.returncode == 2
    assert "did you mean wanda?" in refused.stderr
    assert "inside the source tree" in refused.stderr


@pytest.mark.parametrize("script", PROJECT["scripts"].values())
def test_console_scripts_name_functions(script):
    module, _, function = script.partition(":")
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    assert re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_pins_are_within_the_ranges_and_complete():
    pins = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name] = version
    extras = PROJECT["optional-dependencies"]
    ranges = [
        Requirement(text)
        for text in [*PROJECT["dependencies"], *(text for name in extras if name != "data" for text in extras[name])]
    ]
    named = {need.name: need for need in ranges if need.name != PROJECT["name"]}
    assert set(named) == set(pins)
    assert [name for name, need in named.items() if not need.specifier.contains(pins[name])] == []


def test_what_an_extra_installs_is_missed_with_the_way_out():
    assert absent("json", "track") is None
    assert absent("no_such_package", "track") == (
        "no_such_package is not installed; the extra installs it: pip install 'pruning-representations[track]'"
    )
