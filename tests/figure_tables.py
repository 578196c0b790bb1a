"""Tables like a small run's, for the tests of figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.evaluate.comparison import compare
from pipeline.evaluate.fidelity import fidelity
from pipeline.store.integrity import digest
from pipeline.tables.job_columns import HOW, IDS, WHO

SETTINGS = "trial tasks · 12 prompts, 32 greedy steps · float32 · #ab12"
MODEL = "tiny-lm"
LINE = f"{MODEL} · {SETTINGS}"
SETUPS = (
    ("shortgpt", "0.2"),
    ("shortgpt", "0.4"),
    ("wanda", "0.4"),
    ("wanda", "2:4"),
    ("wanda", "4:8"),
    ("sparsegpt", "2:4"),
    ("attn_drop", "4"),
    ("attn_drop", "8"),
    ("mlp_drop", "4"),
    ("mlp_drop", "8"),
    ("rtn", "0"),
)
SHARES = {"0": 0.0, "0.2": 0.2, "0.4": 0.4, "2:4": 0.5, "4:8": 0.5, "4": 0.05, "8": 0.1, "6": 0.07}
UNITS = {"shortgpt": "block", "attn_drop": "attention", "mlp_drop": "mlp"}
UNITS |= dict.fromkeys(("divergence", "divergence_estimate"), "attention")
TASKS = {
    "generative": ("arithmetic", "copying", "facts"),
    "multiple_choice": ("cloze", "entailment", "science"),
}


TEMPERATURES = (0.3, 0.7, 1.0)


ITEMS = 100
CHANCES = {"multiple_choice": 0.25}
METRICS = {"generative": "exact_match", "multiple_choice": "acc", "retrieval": "ndcg", "perplexity": "perplexity"}


def once(make: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Make a table once for the same arguments and constants, since most figures take less; give a copy each time."""
    made: dict[str, pd.DataFrame] = {}

    @wraps(make)
    def given(setups: Sequence[tuple[str, str]] = SETUPS, *others: object, **named: object) -> pd.DataFrame:
        key = repr(([*setups], others, named, SHARES, UNITS, TASKS))
        if key not in made:
            made[key] = make(setups, *others, **named)
        return made[key].copy()

    return given


@once
def items_table(setups: Sequence[tuple[str, str]] = SETUPS) -> pd.DataFrame:
    """Items that are right where a number of their own is below the score: the same items hold up in all variants.

    Generation falls to nothing with sparsity, multiple choice hardly. Scores of retrieval lie between 0 and 1.
    """
    frames = []
    for pruner, sparsity in [("dense", "0"), *setups]:
        share = SHARES[sparsity]
        for kind, tasks in TASKS.items():
            for place, task in enumerate(tasks):
                # What an item takes; every variant finds it a little harder or easier.
                rng = np.random.default_rng(sum(map(ord, kind + task)))
                needs = rng.permutation(ITEMS) / ITEMS
                top = 0.35 + 0.12 * (place % 5)
                value = (
                    0.25 + (top - 0.22) * (1 - 0.5 * share) if kind == "multiple_choice" else top * np.exp(-6 * share)
                )
                own = np.random.default_rng(sum(map(ord, kind + task + pruner + sparsity)))
                needs = needs + (own.normal(0, 0.02, ITEMS) if pruner != "dense" else 0)
                score = (needs < value).astype(float) if kind != "retrieval" else np.clip(value - needs / 4, 0, 1)
                columns = {"task": task, "kind": kind, "item": range(ITEMS), "score": score}
                columns |= answers(kind, score, share, own)
                frames.append(pd.DataFrame(columns).assign(pruner=pruner, sparsity=sparsity))
    return pd.concat(frames, ignore_index=True)


def answers(kind: str, score: np.ndarray, share: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What was chosen or written: wrong answers fall further in rank, and texts get longer, with what is removed."""
    right, nothing = score >= 1, np.full(len(score), np.nan)
    if kind == "multiple_choice":
        rank = np.where(right, 1, rng.integers(2, 5, len(score))).astype(float)
        chosen = {"choice": rank - 1, "gold_rank": rank, "gold_p": 0.9 / rank}
        return chosen | dict.fromkeys(("tokens", "truncated", "repetition"), nothing)
    rank = np.where(right, np.nan, np.ceil(np.exp(rng.exponential(1 + 8 * share, len(score)))) + 1)
    long = np.where(right, 3.0, 5.0)
    told = {"tokens": long, "truncated": (long == 5).astype(float), "repetition": share * (long - 3) / 4}
    return {"choice": nothing, "gold_rank": rank, "gold_p": 0.5 / rank} | told


def scores_table(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    """Means of the items, and a metric that is not the main one."""
    groups = items_table(setups).groupby(["pruner", "sparsity", "kind", "task"], sort=False)["score"]
    frame = groups.agg(value="mean", stderr="sem", n="size").reset_index()
    frame = frame.assign(
        metric=frame["kind"].map(METRICS),
        main=True,
        achieved=frame["sparsity"].map(SHARES),
        shots=0,
        higher_is_better=True,
        averaged=True,
        data="0a1b2c3d",
        chance=frame["kind"].map(CHANCES).fillna(0.0),
        left_out=0,
        close=2,
    )
    frame = pd.concat([frame, frame.assign(metric="another", main=False, value=frame["value"] / 3)], ignore_index=True)
    return identified(frame, settings)


def main_scores(setups: Sequence[tuple[str, str]] = SETUPS) -> pd.DataFrame:
    """The rows of `scores_table` that figures show."""
    scores = scores_table(setups)
    return scores[scores["main"]].reset_index(drop=True)


def perplexity_rows(scores: pd.DataFrame, text: str = "wiki") -> pd.DataFrame:
    """A perplexity for every variant of a scores table, twice as large for every tenth that is removed."""
    first = scores[scores["main"]].drop_duplicates(["pruner", "sparsity"])
    about = {
        "kind": "perplexity",
        "task": text,
        "metric": "perplexity",
        "higher_is_better": False,
        "averaged": False,
        "chance": 0.0,
    }
    return first.assign(**about, value=12.5 * 2 ** (10 * first["achieved"]), stderr=np.nan)


@once
def comparisons_table(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    """The items of every variant against the dense model's."""
    items, scores = items_table(setups), scores_table(setups)
    named = dict(list(items.groupby(["pruner", "sparsity"])))
    rows = scores.groupby(["pruner", "sparsity"])
    dense = named["dense", "0"], rows.get_group(("dense", "0"))
    frames = [
        compare(dense[0], named[setup], dense[1], rows.get_group(setup)).assign(pruner=setup[0], sparsity=setup[1])
        for setup in setups
        if setup in named and setup != ("dense", "0")
    ]
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    return identified(frame, settings)


@once
def fidelity_table(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    """The answers of every variant against the dense model's; generation and multiple choice have the same tasks."""
    named = dict(list(twin_items(setups).groupby(["pruner", "sparsity"])))
    frames = [
        fidelity(named["dense", "0"], named[setup], scores_table(setups)).assign(pruner=setup[0], sparsity=setup[1])
        for setup in setups
        if setup != ("dense", "0")
    ]
    return identified(pd.concat(frames, ignore_index=True), settings) if frames else pd.DataFrame()


def twin_items(setups: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The items, as if both forms of each task asked the same."""
    twins = dict(zip(TASKS.get("multiple_choice", ()), TASKS.get("generative", ()), strict=False))
    items = items_table(setups)
    return items.assign(task=items["task"].replace(twins))


def told_items(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    """The items with the columns that say whose they are."""
    frame = items_table(setups)
    return identified(frame, settings)


def rankings_table(setups: Sequence[tuple[str, str]], settings: str = SETTINGS) -> pd.DataFrame:
    """What attention sublayers cost alone, and the cheapest ones as a path; an estimate is a little off."""
    rng, rows = np.random.default_rng(0), []
    cost = np.exp(rng.normal(-2, 1, 12))
    for pruner, sparsity in setups:
        if pruner.startswith("divergence"):
            own = cost * (np.exp(rng.normal(0, 0.2, 12)) if "estimate" in pruner else 1)
            rows += [(pruner, sparsity, layer, "attention", value, -1) for layer, value in enumerate(own)]
            order = np.argsort(own)[: int(sparsity)]
            rows += [(pruner, sparsity, int(layer), "attention", own[layer], step) for step, layer in enumerate(order)]
    frame = pd.DataFrame(rows, columns=["pruner", "sparsity", "layer", "sublayer", "score", "step"])
    return identified(frame, settings)


def prompts(count: int) -> list[str]:
    return [f"{('choice', 'arithmetic', 'open')[index % 3]}-{index // 3 + 1}" for index in range(count)]


def _strength(pruner: str, sparsity: str) -> float:
    """How strongly a setup changes things; a quantizer has no sparsity and still changes them."""
    return 0.05 if pruner == "rtn" else SHARES[sparsity]


@once
def measures_table(
    setups: Sequence[tuple[str, str]] = SETUPS, layers: int = 30, count: int = 12, settings: str = SETTINGS
) -> pd.DataFrame:
    """Three protocols; trajectories of different lengths; sparsity 0 changes nothing at all."""
    frames = []
    for pruner, sparsity in setups:
        share, seed = _strength(pruner, sparsity), sum(map(ord, pruner))
        weights = UNITS.get(pruner, "weight") == "weight"
        # A layer dropper measures the same under the layer protocol at every sparsity.
        strength = 0.0 if share == 0 else 0.3 + share if weights else 1.0
        sublayers = [
            kind for kind in ("attention", "mlp") if UNITS.get(pruner, kind) not in {"attention", "mlp"} - {kind}
        ]
        parts = [_layer_rows(seed, strength, sublayers, layers, count)]
        parts += [_final_rows(seed, share, count, protocol) for protocol in ("teacher_forced", "free_running")]
        frames += [part.assign(pruner=pruner, sparsity=sparsity) for part in parts]
    frame = pd.concat(frames, ignore_index=True)
    return identified(frame, settings)


def _lengths(count: int) -> list[int]:
    return [16 + (7 * index) % 17 for index in range(count)]


def _layer_rows(seed: int, strength: float, sublayers: Sequence[str], layers: int, count: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    grid = [
        (name, step, layer, sublayer, temperature)
        for name, length in zip(prompts(count), _lengths(count), strict=True)
        for step in range(length)
        for layer in range(layers)
        for sublayer in sublayers
        for temperature in TEMPERATURES
    ]
    frame = pd.DataFrame(grid, columns=["prompt", "step", "layer", "sublayer", "temperature"])
    depth = 1.5 * np.exp(-frame["layer"] / 2.0) + 0.05 + 0.1 * (frame["layer"] / layers) ** 4
    noise = np.exp(rng.normal(0, 0.5, len(frame)))
    size = np.where(frame["sublayer"] == "mlp", 1.6, 1.0)
    orth = strength * size * noise * 0.1 * depth
    return _measures(frame.assign(protocol="layer"), orth, rng)


def _final_rows(seed: int, share: float, count: int, protocol: str) -> pd.DataFrame:
    """Final states: errors grow over the steps only where a model reads its own tokens."""
    rng = np.random.default_rng(seed)
    grid = [
        (name, step, temperature)
        for name, length in zip(prompts(count), _lengths(count), strict=True)
        for step in range(length)
        for temperature in TEMPERATURES
    ]
    frame = pd.DataFrame(grid, columns=["prompt", "step", "temperature"]).assign(layer=-1, sublayer="final")
    growth = 0.06 * frame["step"] if protocol == "free_running" else 0.0
    orth = share * np.exp(rng.normal(0, 0.5, len(frame))) * (0.15 + growth)
    return _measures(frame.assign(protocol=protocol), orth, rng)


def _measures(frame: pd.DataFrame, orth: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    noise = np.exp(rng.normal(0, 0.3, len(frame)))
    variance = 40 * orth * noise / frame["temperature"] ** 2
    exact = {
        "cos_h": 1 / np.sqrt(1 + orth),
        "cos_z": 1 / np.sqrt(1 + 0.6 * orth),
        "cos_p": np.exp(-variance / 2 * noise),
        "kl": variance / 2 / noise,
        "kl_reverse": variance / 2 / noise**0.5,
        "tv": 1 - np.exp(-variance / 2 / noise),
    }
    estimates = {
        "est_cos_h": 1 - orth / 2,
        "est_cos_z": 1 - 0.3 * orth,
        "est_cos_p": 1 - variance / 2,
        "est_kl": variance / 2,
    }
    spread = {"var_p": 2 * estimates["est_kl"] * frame["temperature"] ** 2}
    spread |= {
        "var_r": 0.3 * spread["var_p"],
        "var_uniform": 3 * spread["var_p"],
        "rms_dz": np.sqrt(4 * spread["var_p"]),
    }
    top1 = rng.beta(2, 1, len(frame))
    confidence = {"top1": top1, "entropy": -3 * np.log(top1), "margin": 4 * top1}
    flip = (rng.random(len(frame)) < (1 - top1) * np.minimum(1, variance)).astype(float)
    geometry = {"orth_h": orth, "orth_z": 0.6 * orth, "par_h": orth / 9, "par_z": orth / 12}
    return frame.assign(**exact, **estimates, **spread, **geometry, **confidence, flip=flip)


def trajectories_table(setups: Sequence[tuple[str, str]] = SETUPS, count: int = 12) -> pd.DataFrame:
    """Greedy tokens of both models: prompt i differs first at step i + 2 (never at sparsity 0)."""
    rows = [
        (pruner, sparsity, name, step, step, step + 1000 * (step >= index + 2 and _strength(pruner, sparsity) > 0))
        for pruner, sparsity in setups
        for index, (name, length) in enumerate(zip(prompts(count), _lengths(count), strict=True))
        for step in range(length)
    ]
    frame = pd.DataFrame(rows, columns=["pruner", "sparsity", "prompt", "step", "dense_token", "pruned_token"])
    texts = {
        "dense_text": " word",
        "pruned_text": frame["pruned_token"].map(lambda t: " word" if t < 1000 else " wyrd"),
    }
    return identified(frame.assign(**texts))


def options_table(setups: Sequence[tuple[str, str]] = SETUPS, count: int = 12, draws: int = 8) -> pd.DataFrame:
    """The option tokens keep their order, random tokens of equal rank do so less, the vocabulary least."""
    rng, rows = np.random.default_rng(5), []
    for pruner, sparsity in setups:
        for index in range(count):
            sets = [("vocabulary", 0, 1.0), ("options", 0, 0.1), *(("control", draw, 0.3) for draw in range(draws))]
            for name, draw, factor in sets:
                kl = 20 * factor * _strength(pruner, sparsity) * float(np.exp(rng.normal(0, 0.5)))
                for temperature in TEMPERATURES:
                    rows.append(
                        {
                            "pruner": pruner,
                            "sparsity": sparsity,
                            "prompt": f"choice-{index}",
                            "origin": "probe" if index < 4 else "trial",
                            "set": name,
                            "draw": draw,
                            "temperature": temperature,
                            "size": 49152 if name == "vocabulary" else 4,
                            "kl": kl,
                            "kl_reverse": 0.9 * kl,
                            "cos_p": float(np.exp(-kl)),
                            "flip": float(rng.random() < min(1.0, kl / 4)),
                            "mass_dense": 1.0 if name == "vocabulary" else 0.8,
                            "mass_pruned": 1.0 if name == "vocabulary" else 0.8 / (1 + kl),
                            "rank_dense": 1.5,
                            "rank_pruned": 1.5 * (1 + kl),
                            "margin_dense": 2.0,
                            "margin_pruned": 2.0 - kl,
                            "correct_dense": 1.0 if name == "options" else np.nan,
                            "correct_pruned": float(kl < 1) if name == "options" else np.nan,
                        }
                    )
    frame = pd.DataFrame(rows)
    return identified(frame)


def option_tokens_table(setups: Sequence[tuple[str, str]] = SETUPS, count: int = 12) -> pd.DataFrame:
    """Four options and the ten likeliest tokens of each prompt."""
    rows = []
    for pruner, sparsity in setups:
        shift = 5 * _strength(pruner, sparsity)
        for index in range(count):
            for role, size in (("option", 4), ("top", 10)):
                for place in range(size):
                    dense = -0.5 - 0.9 * place
                    rows.append(
                        {
                            "pruner": pruner,
                            "sparsity": sparsity,
                            "prompt": f"choice-{index}",
                            "origin": "probe" if index < 4 else "trial",
                            "role": role,
                            "place": place,
                            "token": place,
                            "text": " " + "ABCDEFGHIJ"[place],
                            "gold": role == "option" and place == index % 4,
                            "logp_dense": dense,
                            "logp_pruned": dense - shift * (0.2 if role == "option" else place % 3),
                            "rank_dense": float(place),
                            "rank_pruned": float(place * (1 + shift)),
                        }
                    )
    frame = pd.DataFrame(rows)
    return identified(frame)


def prompts_table(count: int = 12) -> pd.DataFrame:
    names = prompts(count)
    text = [f"{name}: which of these is it?\nA. this\nB. that" for name in names]
    frame = pd.DataFrame({"prompt": names, "format": [name.partition("-")[0] for name in names], "text": text})
    return identified(frame.assign(steps=32, pruner="dense", sparsity="0"))


def prompt_mean(rows: pd.DataFrame, column: str) -> float:
    """The mean over prompts of the means of each."""
    return float(rows.groupby("prompt")[column].mean().mean())


def jobs_table(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    return jobs_of(identified(pd.DataFrame([("dense", "0"), *setups], columns=["pruner", "sparsity"]), settings))


def jobs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each job that these rows are of."""
    jobs = rows.drop_duplicates("job")[list(WHO + HOW + IDS)].reset_index(drop=True)
    shares = [SHARES.get(sparsity, 0.0) for sparsity in jobs["sparsity"]]
    return jobs.assign(
        base_id=jobs["settings_id"],
        changed="[]",
        achieved=shares,
        parameters=[int(1_000_000 * (1 - share)) for share in shares],
        dense_parameters=1_000_000,
        status="ok",
        dropped=[dropped_of(*row) for row in zip(jobs["unit"], jobs["sparsity"], strict=True)],
        finished=[f"2030-01-01T00:00:{place:02d}" for place in range(len(jobs))],
    )


def dropped_of(unit: str, sparsity: str) -> str:
    """The first layers lose what the unit is, as many as the sparsity says; one that is no count drops two."""
    count = 0 if unit == "weight" or SHARES.get(sparsity, 0) == 0 else int(sparsity) if sparsity.isdigit() else 2
    kinds = {"attention": ("attention", "block", "sublayer"), "mlp": ("mlp", "block", "sublayer")}
    return json.dumps({kind: list(range(count)) if unit in units else [] for kind, units in kinds.items()})


def identified(
    frame: pd.DataFrame, settings: str = SETTINGS, model: str = MODEL, seed: int = 0, options: str = "{}", draw: int = 1
) -> pd.DataFrame:
    """The rows with the columns that say whose they are: one job for each pruner, sparsity, options, seed and draw."""
    who = frame["pruner"] + frame["sparsity"]
    own = (
        ("" if options == "{}" else options) + (f" seed {seed}" if seed else "") + (f" draw {draw}" if draw > 1 else "")
    )
    columns = dict.fromkeys(WHO + HOW + IDS, "") | {
        "seed": seed,
        "pruner_draw": draw,
        "settings": settings,
        "model": model,
    }
    columns |= {"pruner_options": options, "calibration_options": "{}", "dtype": "float32", "chat_template": False}
    columns |= {"calibration_draw": 1.0, "calibration_seed": float(seed)}
    columns |= {"sequences": 128.0, "length": 256.0, "shots": np.nan, "limit": 100.0}
    columns |= {"settings_id": digest(settings), "model_id": digest(model), "sparsity_value": 0.0}
    columns |= {"variant_id": (who + options).map(digest), "job": who + own, "pruner": frame["pruner"]}
    columns |= {"sparsity": frame["sparsity"], "unit": frame["pruner"].map(lambda name: UNITS.get(name, "weight"))}
    own_columns = {name: frame[name] for name in ("shots",) if name in frame}
    return frame.assign(**columns | own_columns)


def save(outputs: Path, **tables: pd.DataFrame) -> Path:
    """Write tables; where there is none of jobs, one of the jobs that the others have rows of."""
    (outputs / "tables").mkdir(parents=True, exist_ok=True)
    if "jobs" not in tables and not (outputs / "tables" / "jobs.parquet").is_file():
        tables["jobs"] = jobs_of(pd.concat([table[WHO + HOW + IDS] for table in tables.values()], ignore_index=True))
    for name, table in tables.items():
        table.to_parquet(outputs / "tables" / f"{name}.parquet")
    return outputs


def fill(outputs: Path, setups: Sequence[tuple[str, str]] = SETUPS, layers: int = 5) -> Path:
    """All tables of a small model."""
    return save(
        outputs,
        scores=scores_table(setups),
        comparisons=comparisons_table(setups),
        fidelity=fidelity_table(setups),
        measures=measures_table(setups, layers=layers, count=4),
        trajectories=trajectories_table(setups, 4),
        options=options_table(setups, 4),
        option_tokens=option_tokens_table(setups, 4),
        prompts=prompts_table(4),
        jobs=jobs_table(setups),
        items=told_items(setups),
        **({"rankings": ranked} if len(ranked := rankings_table(setups)) else {}),
    )


def second_model(outputs: Path, name: str, setups: Sequence[tuple[str, str]] = SETUPS) -> Path:
    """Add the scores of another model under the same settings."""
    path = outputs / "tables"
    for table in ("scores", "jobs"):
        frame = pd.read_parquet(path / f"{table}.parquet")
        other = frame[frame["model"] == MODEL].copy()
        other = other.assign(model=name, model_id=digest(name), job=name + other["job"])
        other = other.assign(variant_id=(name + other["variant_id"]).map(digest))
        # Older, so that the first model stays the newest.
        if table == "jobs":
            other = other.assign(finished="2029" + other["finished"].str[4:])
        pd.concat([frame, other], ignore_index=True).to_parquet(path / f"{table}.parquet")
    return outputs
