"""The README and docs/: examples run, links lead somewhere, tables name every key and every column."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import TINY
from hydra import compose, initialize_config_dir
from places import ROOT

from pipeline.config.choices import CONF, choices_of, read_choice
from pipeline.config.experiment import GRIDS
from pipeline.config.schema import flatten
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context
from pipeline.run.compose import resolve
from pipeline.run.job import run_job

DOCS = ROOT / "docs"
MOST_LINES = 150
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")
# Columns that only some jobs have, and the table that `pipeline.study.predict` writes.
_SOMETIMES = {"rankings": {"spread"}}


def rows_of(text: str) -> Iterator[list[str]]:
    """Cells of every row of the Markdown tables in a text, without heads."""
    for table in re.findall(r"^\|.*\|\n\|[ :|-]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            yield [cell.strip() for cell in _CELL.split(line)[1:-1]]


def section(page: str, title: str) -> str:
    """The part of a page from a heading to the next of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


# --- links ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Ids and addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.ids |= {facts["id"] or ""} if "id" in facts else set()
        self.addresses += [facts["href"] or ""] if tag == "a" and "href" in facts else []
        if tag in ("script", "img", "iframe") or (tag == "link" and facts.get("rel") == "stylesheet"):
            self.loads += [facts.get("src") or facts.get("href") or ""]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation as `make docs` builds it; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site):
    loads = [address for path in site.rglob("*.html") for address in Page(path).loads]
    assert loads
    assert [address for address in loads if "//" in address] == []


def test_links_of_the_readme_lead_to_files_and_headings(site):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", readme) if "://" not in link]
    assert len(links) > 10
    for link in links:
        name, _, anchor = link.partition("#")
        assert (ROOT / name).exists(), link
        if anchor:
            page = site / Path(name).relative_to("docs").with_suffix(".html")
            assert anchor in Page(page).ids, link


# --- examples ---------------------------------------------------------------------------------------------------------


def test_the_pruner_that_the_docs_show_works(make_model):
    """Its code as it stands there, on every kind of sparsity that it says it accepts."""
    code, _ = _CODE.findall((DOCS / "extending" / "pruner.md").read_text(encoding="utf-8"))
    space: dict[str, object] = {"__name__": "last_blocks"}
    sys.modules["last_blocks"] = types.ModuleType("last_blocks")
    exec(code, space)
    pruner: Any = space["LastBlocks"]
    for sparsity, blocks in ((2, (2, 3)), (0.25, (3,)), (0, ())):
        assert pruner(name="last_blocks").decide(Decoder(make_model()), parse(sparsity), Context()).blocks == blocks


def test_the_readme_shows_the_same_pruner():
    (shown,) = _CODE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    code, _ = _CODE.findall((DOCS / "extending" / "pruner.md").read_text(encoding="utf-8"))
    assert code.endswith(shown)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Results of a job that has every table."""
    folder = tmp_path_factory.mktemp("docs") / "outputs"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = [
            "pruner=divergence",
            "sparsity=1",
            "calibration=trajectories",
            "calibration.length=4",
            "figures.select=[tab3]",
        ]
        own += ["measure.extra=[cka]"]
        overrides = [word for word in TINY if word.split("=")[0] not in {one.split("=")[0] for one in own}]
        settings = resolve(compose("config", overrides=[*overrides, *own, f"outputs={folder}"]))
    assert run_job(settings, "docs", folder / "runs" / "docs" / "0").error is None
    return folder


@pytest.mark.parametrize("number", range(4))
def test_recipes_for_pandas_run(number, outputs, monkeypatch, capsys):
    recipes = _CODE.findall((DOCS / "results.md").read_text(encoding="utf-8"))
    assert len(recipes) == 4
    monkeypatch.chdir(outputs.parent)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    exec(recipes[number], {})
    assert "divergence" in capsys.readouterr().out


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_column_of_every_table_is_explained(outputs):
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    shared = {name for row in rows_of(section(page, "Columns of every table")) for name in words(row[0])}
    for path in sorted((outputs / "tables").glob("*.parquet")):
        own = {name for row in rows_of(section(page, path.stem)) for name in words(row[0])}
        columns = {name for name in pd.read_parquet(path).columns if not name.startswith("pruner.")}
        assert columns - shared == own - _SOMETIMES.get(path.stem, set()), path.stem
        assert shared <= columns, path.stem


def keys_of(title: str) -> dict[str, str]:
    """Default, as it is written, of every key in a section of the page about the configuration."""
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    return {words(row[0])[0]: row[1].strip("`") for row in rows_of(section(page, title))}


def test_every_key_of_a_job_is_explained_with_its_default():
    root = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    plain = {key: value for key, value in root.items() if key not in ("defaults", "hydra", *GRIDS)}
    written = {key: yaml.safe_load(text) for key, text in keys_of("Keys of every job").items()}
    assert written == flatten(plain) | {key: root[key] for key in GRIDS}


@pytest.mark.parametrize(
    "group", ["model", "pruner", "task", "calibration", "measures", "hydra/sweeper", "hydra/launcher"]
)
def test_every_key_of_a_group_is_explained_with_its_default(group):
    values: dict[str, list[Any]] = {}
    for name in choices_of(group):
        for key, value in read_choice(group, name).items():
            values.setdefault(key, []).append(value)
    # The name of a choice is that of its file; of a launcher it is the name that Slurm shows.
    apart = ("_target_",) if group == "hydra/launcher" else ("_target_", "name")
    known = {key: own for key, own in values.items() if key not in apart}
    title = group.replace("/", ".")
    written = {key.removeprefix(f"{title}."): text for key, text in keys_of(title).items()}
    assert set(written) == set(known)
    for key, own in known.items():
        same = all(value == own[0] for value in own) and own[0] != "???"
        if written[key] == "varies":
            assert not same or len(own) == 1, key
        else:
            assert same and yaml.safe_load(written[key]) == own[0], key
