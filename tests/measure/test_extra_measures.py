"""Further measures: the built-in ones against independent definitions, and what a job makes of them."""

from __future__ import annotations

import math
from typing import ClassVar

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from pipeline.measure import extras
from pipeline.measure.base import Measure, Tile
from pipeline.measure.columns import COLUMNS
from pipeline.measure.extra.cka import CKA, cka_deviation
from pipeline.measure.extra.jensen_shannon import JensenShannon
from pipeline.measure.extras import extra_problems
from pipeline.measure.measures import compare
from pipeline.model.head import Head
from pipeline.results.__main__ import main as results
from pipeline.run.job import run_job
from pipeline.run.job_record import describe
from pipeline.store.artifacts import Store
from pipeline.store.records import OK
from pipeline.tables.job_tables import JobTables
from pipeline.track.job_log import Wanted, log_results

NATS = JensenShannon("jensen_shannon", unit="nats")


def tile(logits: float, scale: float, dtype: torch.dtype = torch.float32, vocabulary: int = 200) -> Tile:
    generator = torch.Generator().manual_seed(5)
    z, delta = (size * torch.randn(4, vocabulary, generator=generator, dtype=torch.float64) for size in (logits, scale))
    return Tile(z.to(dtype), delta.to(dtype), z.to(dtype), delta.to(dtype), 0.7)


def exact(of: Tile) -> tuple[list[float], list[float]]:
    """Jensen-Shannon divergence and total variation of each row with sixty digits."""
    divergences, distances = [], []
    with mpmath.workdps(60):
        for z, delta in zip(of.z, of.delta_z, strict=True):
            dense = [mpmath.mpf(float(x)) / mpmath.mpf(of.temperature) for x in z]
            moved = [x + mpmath.mpf(float(d)) / mpmath.mpf(of.temperature) for x, d in zip(dense, delta, strict=True)]
            p, q = (shares([mpmath.exp(x) for x in row]) for row in (dense, moved))
            pairs = list(zip(p, q, strict=True))
            terms = (a * mpmath.log(2 * a / (a + b)) + b * mpmath.log(2 * b / (a + b)) for a, b in pairs)
            divergences.append(float(mpmath.fsum(terms) / 2))
            distances.append(float(mpmath.fsum(abs(a - b) for a, b in pairs) / 2))
    return divergences, distances


def shares(weights: list[mpmath.mpf]) -> list[mpmath.mpf]:
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


@pytest.mark.parametrize("logits", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 1.0, 20.0])
def test_jensen_shannon_and_changes_of_probability_keep_their_digits(logits, scale):
    """Down to divergences of 1e-14, which a difference of float32 probabilities could not show."""
    given = tile(logits, scale)
    divergences, distances = exact(given)
    np.testing.assert_allclose(NATS.compute(given)["jensen_shannon"], divergences, rtol=1e-5)
    np.testing.assert_allclose(given.delta_p.abs().double().sum(-1) / 2, distances, rtol=1e-5)


@pytest.mark.parametrize(("logits", "scale"), [(200.0, 1.0), (200.0, 400.0), (1.0, 400.0)])
def test_one_token_with_all_probability_and_huge_changes(logits, scale):
    given = tile(logits, scale)
    np.testing.assert_allclose(NATS.compute(given)["jensen_shannon"], exact(given)[0], rtol=1e-3, atol=1e-20)


def test_jensen_shannon_is_the_square_of_scipys_distance():
    given = tile(2.0, 1.5, torch.float64)
    expected = jensenshannon(given.p.numpy(), given.q.numpy(), axis=1) ** 2
    np.testing.assert_allclose(NATS.compute(given)["jensen_shannon"], expected, rtol=1e-12)
    bits = JensenShannon("jensen_shannon", unit="bits").compute(given)["jensen_shannon"]
    np.testing.assert_allclose(bits, expected / math.log(2), rtol=1e-12)


def test_equal_logits_diverge_by_exactly_zero():
    given = tile(3.0, 0.0)
    assert (NATS.compute(given)["jensen_shannon"] == 0).all() and (given.delta_p == 0).all()


def by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    """CKA by its definition: the normalised HSIC of the centred linear kernels."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ (states @ states.T) @ centre for states in (x, y))
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


@pytest.mark.parametrize(("n", "width"), [(9, 32), (32, 9), (19, 9)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_cka_agrees_with_its_definition(n, width, scale):
    generator = torch.Generator().manual_seed(n)
    x, noise = (torch.randn(n, width, generator=generator, dtype=torch.float64) + 3 for _ in range(2))
    found = CKA("cka").compute(x, x + scale * noise)["cka"]
    assert found == pytest.approx(by_kernels(x.numpy(), (x + scale * noise).numpy()), rel=1e-12)


@pytest.mark.parametrize(("n", "width"), [(6, 12), (14, 4)])
def test_cka_of_a_tiny_change_keeps_its_digits(n, width):
    generator = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(n, width, generator=generator, dtype=torch.float64) for _ in range(2))
    x, noise = x - x.mean(0), (noise - noise.mean(0)) * 1e-9
    with mpmath.workdps(60):
        first, change = mpmath.matrix(x.tolist()), mpmath.matrix(noise.tolist())
        k, m = (states * states.T for states in (first, first + change))
        products = [mpmath.fsum(a * b for a, b in zip(u, v, strict=True)) for u, v in ((k, m), (k, k), (m, m))]
        expected = float(1 - products[0] / mpmath.sqrt(products[1] * products[2]))
    assert 0 < expected < 1e-16
    assert float(cka_deviation(x, noise)) == pytest.approx(expected, rel=1e-5)


def test_cka_sees_the_geometry_alone():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    assert CKA("cka").compute(x, x)["cka"] == 1
    assert CKA("cka").compute(x, 5 * x @ turned + 7)["cka"] == pytest.approx(1, abs=1e-10)
    with pytest.raises(ValueError, match="at least 2 states; give more prompts"):
        CKA("cka").compute(x[:1], x[:1])


def test_further_columns_come_after_the_built_in_ones_and_change_none_of_them():
    generator = torch.Generator().manual_seed(7)
    h, change = (torch.randn(7, 16, generator=generator) for _ in range(2))
    head = Head(torch.randn(300, 16, generator=generator), cap=5.0)
    usual, more = (compare(h, h + 0.1 * change, head, [1.0, 0.5], extra) for extra in ([], [NATS]))
    assert list(more) == ["position", "temperature", *COLUMNS, "jensen_shannon"]
    pd.testing.assert_frame_equal(usual, more.drop(columns="jensen_shannon"), check_exact=True)
    head = Head(head.weight.double(), cap=5.0)
    p, q = (torch.softmax(head.logits(x.double()) / 0.5, -1).numpy() for x in (h, h + 0.1 * change))
    half = more[more.temperature == 0.5]["jensen_shannon"]
    np.testing.assert_allclose(half, jensenshannon(p, q, axis=1) ** 2, rtol=1e-4)


class Wrong(Measure):
    """A measure whose result is given to it."""

    columns = ("right",)

    def __init__(self, found: object) -> None:
        object.__setattr__(self, "name", "wrong")
        object.__setattr__(self, "found", found)

    def compute(self, tile: Tile) -> object:
        return self.found


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"left": torch.zeros(4)}, "computes left, but its columns are right"),
        ({"right": torch.zeros(4, 2)}, r"right is of shape \(4, 2\) at 4 positions"),
        ({"right": 0.5}, "right is float at 4 positions; return a tensor with a number for each position"),
    ],
)
def test_a_result_of_another_form_is_refused(found, why):
    z = torch.randn(4, 16)
    with pytest.raises(ValueError, match=why):
        compare(z, z + 1, Head(torch.eye(16)), [1.0], [Wrong(found)])


def test_choices_that_cannot_be_meant_are_refused(monkeypatch):
    cka = {"_target_": "pipeline.measure.extra.cka.CKA", "name": "cka"}
    files = {
        "cka": cka,
        "again": cka | {"name": "again"},
        "pruner": {"_target_": "pipeline.prune.methods.dense.Dense", "name": "dense"},
        "nothing": {"name": "nothing"},
        "typo": {"_target_": "pipeline.measure.extra.jensen_shannon.JensenShannon", "name": "typo", "unit": "nat"},
        "taken": {"_target_": f"{__name__}.Taken", "name": "taken"},
    }
    monkeypatch.setattr(extras, "choices_of", lambda group: sorted(files))
    monkeypatch.setattr(extras, "read_choice", lambda group, name: files[name])
    assert extra_problems(["cka"]) == []
    for names, why in (
        (["ckaa"], "measure.extra: ckaa does not exist; did you mean cka?"),
        (["cka", "cka"], "measure.extra lists cka twice"),
        (["cka", "again"], "measure.extra: again has the column cka of cka; give it another name"),
        (["pruner"], "conf/measures/pruner: pipeline.prune.methods.dense.Dense has no columns; derive it from Measure"),
        (["nothing"], "conf/measures/nothing has no _target_"),
        (["typo"], "measures/typo.unit=nat does not exist; did you mean nats?"),
        (["taken"], "measure.extra: taken has the column kl of the tables; give it another name"),
    ):
        (problem,) = extra_problems(names)
        assert problem.startswith(why)


class Taken(Measure):
    """A measure with the name of a built-in one."""

    columns: ClassVar[tuple[str, ...]] = ("kl",)


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.summaries: dict[str, float] = {}
        self.curves: dict[str, list[str]] = {}
        self.tables: list[str] = []

    def knows(self, section, source) -> bool:
        return False

    def begins(self, section, source) -> bool:
        return True

    def config(self, values) -> None:
        pass

    def summary(self, values) -> None:
        self.summaries |= values

    def history(self, values) -> None:
        self.summaries |= values

    def curve(self, name, frame, axis) -> None:
        self.curves.setdefault(name, []).extend(frame.columns)

    def table(self, name, frame) -> None:
        self.tables.append(name)

    def artifact(self, name, *rest) -> None:
        self.tables.append(name.partition("-")[0])


def test_a_job_with_further_measures_differs_in_them_alone(make_settings, tmp_path, capsys):
    words = ("pruner=attn_drop", "sparsity=1", "stages=[prune,capture,measure]", "capture.option_items=0")
    plain, more = (make_settings(*words, *extra) for extra in ((), ("measure.extra=[jensen_shannon,cka]",)))
    records = [run_job(settings, "one", tmp_path / name) for name, settings in (("plain", plain), ("more", more))]
    assert [record.status for record in records] == [OK, OK]
    assert {record.variant_id for record in records} == {records[0].variant_id}
    assert records[0].settings_id != records[1].settings_id and "with cka, jensen_shannon" in records[1].settings
    # All but what the further measures are part of is found again.
    assert {key.partition("/")[0] for key in records[1].cost} == {"layers", "measures", "set_measures"}
    swapped = make_settings(*words, "measure.extra=[cka,jensen_shannon]")
    assert describe(swapped).settings_id == records[1].settings_id

    store = Store(plain.outputs)
    before, after = (JobTables(record, store) for record in records)
    own = set(before.measures) - {"settings", "settings_id", "job", "started"}
    pd.testing.assert_frame_equal(before.measures[sorted(own)], after.measures[sorted(own)], check_exact=True)
    assert before.set_measures is None and after.measures["jensen_shannon"].between(0, math.log(2)).all()
    sets = after.set_measures
    assert list(sets.groupby("protocol").size()[["layer", "teacher_forced", "free_running"]]) == [4, 1, 1]
    assert set(sets["sublayer"]) == {"attention", "final"} and sets["value"].between(0, 1).all()
    forced = after.measures[after.measures.protocol == "teacher_forced"]
    assert sets[sets.protocol == "teacher_forced"]["n"].item() == len(forced)
    assert results(["verify", f"outputs={plain.outputs}"]) == 0

    told = Told()
    log_results(after, told, Wanted("tables"))
    assert {"free_running/kl", "free_running/jensen_shannon", "teacher_forced/cka", "free_running/cka"} <= set(
        told.summaries
    )
    assert {"kl", "jensen_shannon", "cka"} <= set(told.curves["layer/attention"])
    assert "measures of sets" in told.tables
