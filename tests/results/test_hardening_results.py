"""Results that somebody else has left, or cut, or made up: a sentence, and nothing outside of outputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from figure_tables import SETUPS, fill
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.common.files import private_name
from pipeline.export.hf import export_folder
from pipeline.plot import style
from pipeline.plot.__main__ import main as figures_main
from pipeline.report.__main__ import main as report_main
from pipeline.store.table_columns import HOW, IDS, WHO
from pipeline.tables.choice import choose
from pipeline.tables.read import load
from pipeline.tables.stored import REQUIRED, DamagedTable, read_table

MAINS: dict[str, Callable[[list[str]], int]] = {"figures": figures_main, "report": report_main}


@pytest.fixture(autouse=True, scope="module")
def _coarse_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    # Every table there is, also the one of pruners that search.
    outputs = fill(tmp_path_factory.mktemp("results"), [*SETUPS, ("divergence", "4")])
    measures = pd.read_parquet(table(outputs, "measures")).drop_duplicates("job")
    sets = measures[[*WHO, *HOW, *IDS]].assign(protocol="layer", layer=0, sublayer="mlp", n=4, measure="cka", value=0.9)
    sets.to_parquet(table(outputs, "set_measures"))
    sets.drop(columns=["layer", "sublayer", "measure", "value"]).assign(temperature=1.0).to_parquet(
        table(outputs, "agreement")
    )
    return outputs


@pytest.fixture
def outputs(results, tmp_path) -> Path:
    """A copy to damage."""
    shutil.copytree(results / "tables", tmp_path / "outputs" / "tables")
    return tmp_path / "outputs"


def table(outputs: Path, name: str) -> Path:
    return outputs / "tables" / f"{name}.parquet"


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a table after an accident."""
    kind = draw(st.sampled_from(["cut", "flipped", "inserted", "random", "empty"]))
    if kind == "random":
        return b"PAR1" + draw(st.binary(max_size=300)) + b"PAR1"
    if kind == "empty":
        return b""
    # Most of what a reader trusts is in the last part.
    near_end = max(0, len(content) - 3000)
    place = draw(st.one_of(st.integers(0, len(content) - 1), st.integers(near_end, len(content) - 1)))
    if kind == "cut":
        return content[:place]
    if kind == "inserted":
        return content[:place] + draw(st.binary(min_size=1, max_size=20)) + content[place:]
    return content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]


@pytest.mark.rotated("damaged tables")
@chosen()
@given(data=st.data(), name=st.sampled_from(sorted(REQUIRED)))
def test_no_damaged_table_is_more_than_a_sentence(results, tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "tables").mkdir()
    for file in (results / "tables").iterdir():
        os.link(file, folder / "tables" / file.name)
    content = table(results, name).read_bytes()
    path = table(folder, name)
    path.unlink()
    path.write_bytes(data.draw(damage(content)))
    try:
        load(folder, choose(folder))
    except DamagedTable as error:
        assert str(path) in str(error) and "verify --repair" in str(error)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("how", ["bytes", "lacking", "words", "folder", "pipe", "link to nothing"])
def test_the_commands_tell_what_is_damaged(outputs, capsys, main, how):
    path = table(outputs, "scores")
    frame = pd.read_parquet(path)
    path.unlink()
    if how == "bytes":
        path.write_bytes(os.urandom(1000))
    elif how == "lacking":
        frame.drop(columns=["stderr", "n"]).to_parquet(path)
    elif how == "words":
        frame.assign(value="high").to_parquet(path)
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert MAINS[main](["--outputs", str(outputs)]) == 1
    said = capsys.readouterr().err
    assert str(path) in said and "verify --repair" in said
    assert len(said.splitlines()) == 1
    assert {file.name for file in outputs.iterdir()} == {"tables"}


def test_a_flipped_bit_inside_a_column_is_noticed(tmp_path):
    """Page checksums are written with the tables; a value that has changed on disk is no value."""
    (tmp_path / "tables").mkdir()
    path = table(tmp_path, "jobs")
    frame = pd.DataFrame([dict.fromkeys(REQUIRED["jobs"], "word")] * 50)
    numbers = (
        "sparsity_value",
        "seed",
        "pruner_draw",
        "calibration_draw",
        "calibration_seed",
        "sequences",
        "length",
        "limit",
        "parameters",
        "dense_parameters",
    )
    frame = frame.assign(**dict.fromkeys(numbers, 1), chat_template=False, achieved=0.123456789)
    frame.to_parquet(path, index=False, write_page_checksum=True, compression=None, use_dictionary=False)
    content = bytearray(path.read_bytes())
    place = content.index(pd.Series([0.123456789] * 2).to_numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    assert float(pd.read_parquet(path)["achieved"].iloc[0]) != 0.123456789
    with pytest.raises(DamagedTable, match="cannot be read"):
        read_table(tmp_path, "jobs")


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("folder", ["figures", "report", "tables"])
def test_nothing_is_read_or_written_through_a_link_out_of_outputs(outputs, tmp_path, capsys, main, folder):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if folder == "tables":
        (outputs / "tables").rename(elsewhere / "tables")
        elsewhere /= "tables"
    (outputs / folder).symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    assert MAINS[main](["--outputs", str(outputs)]) == 1
    assert f"{outputs / folder} points outside {outputs}" in capsys.readouterr().err
    assert sorted(elsewhere.iterdir()) == before


def test_outputs_itself_may_be_a_link(outputs, tmp_path, capsys):
    (tmp_path / "link").symlink_to(outputs)
    assert figures_main(["fig01", "--outputs", str(tmp_path / "link")]) == 0
    assert "fig01_score_vs_sparsity: drawn" in capsys.readouterr().out


@chosen(2)
@given(
    model=st.one_of(
        st.text(max_size=400), st.sampled_from(["..", "/", "../../etc", "a/b", "\x00", "ü" * 300, "x" * 400, ".hidden"])
    ),
    pruner=st.text(max_size=80),
    sparsity=st.sampled_from(["0.2", "2:4", "8"]),
)
def test_the_folder_of_an_export_is_one_folder(model, pruner, sparsity):
    """Whatever a model is called: one name that file systems take, with room for a private one beside it."""
    from types import SimpleNamespace as Space

    settings = Space(model=Space(name=model), pruner=Space(name=pruner), sparsity=Space(given=sparsity))
    name = export_folder(settings, "0123456789abcdef")
    assert name not in ("", ".", "..")
    assert not name.startswith(".") and "/" not in name and name.isprintable()
    assert len(private_name(f".{name}").encode()) <= 255
    assert name.endswith("012345")


def test_names_that_only_the_metadata_have_wrong_are_told(tmp_path):
    """A frame takes its names from metadata beside the schema, in which a bit can flip, too."""
    outputs = fill(tmp_path)
    path = outputs / "tables" / "scores.parquet"
    table = pyarrow.parquet.read_table(path)
    flipped = table.schema.metadata[b"pandas"].replace(b'"name": "pruner"', b'"name": "pquner"')
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"pandas": flipped}), path)
    with pytest.raises(DamagedTable, match="it has no pruner; run python -m pipeline.results verify --repair"):
        load(outputs, choose(outputs))
