"""Tables like a small run's, for the tests of figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

SETTINGS = "tiny-lm | tasks: trial | calibration: built-in text (8 x 128) | seed 0"
SETUPS = (("shortgpt", "0.2"), ("shortgpt", "0.4"), ("wanda", "0.4"), ("wanda", "2:4"), ("attn_drop", "6"))
SHARES = {"0": 0.0, "0.2": 0.2, "0.4": 0.4, "2:4": 0.5, "6": 0.07}
TASKS = {
    "generative": ("arithmetic", "copying", "facts"),
    "multiple_choice": ("cloze", "entailment", "science"),
}


def scores_table(setups: Sequence[tuple[str, str]] = SETUPS, settings: str = SETTINGS) -> pd.DataFrame:
    """Generation falls to nothing with sparsity, multiple choice hardly."""
    rng = np.random.default_rng(0)
    rows = []
    for pruner, sparsity in [("dense", "0"), *setups]:
        share = SHARES[sparsity]
        for kind, tasks in TASKS.items():
            for place, task in enumerate(tasks):
                top = 0.35 + 0.12 * place
                value = top * np.exp(-6 * share) if kind == "generative" else 0.25 + (top - 0.22) * (1 - 0.5 * share)
                value = float(np.clip(value + rng.normal(0, 0.01), 0, 1))
                metric = "exact_match" if kind == "generative" else "acc"
                rows.append(
                    (
                        pruner,
                        sparsity,
                        share,
                        task,
                        kind,
                        metric,
                        value,
                        np.sqrt(value * (1 - value) / 100),
                        100,
                    )
                )
    columns = ["pruner", "sparsity", "achieved", "task", "kind", "metric", "value", "stderr", "n"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(model="tiny-lm", job=frame["pruner"] + frame["sparsity"], settings=settings)


def prompts(count: int) -> list[str]:
    return [f"{('choice', 'arithmetic', 'open')[index % 3]}-{index // 3 + 1}" for index in range(count)]


def measures_table(
    setups: Sequence[tuple[str, str]] = SETUPS, layers: int = 30, count: int = 12, settings: str = SETTINGS
) -> pd.DataFrame:
    """Both protocols; trajectories of different lengths; sparsity 0 changes nothing at all."""
    frames = []
    for pruner, sparsity in setups:
        # A layer dropper measures the same under the layer protocol at every sparsity.
        strength = (0.3 + SHARES[sparsity]) if pruner == "wanda" or sparsity == "0" else 1.0
        strength = 0.0 if sparsity == "0" else strength
        sublayers = ("attention",) if pruner == "attn_drop" else ("attention", "mlp")
        seed = sum(map(ord, pruner))
        frames.append(_layer_rows(seed, strength, sublayers, layers, count).assign(pruner=pruner, sparsity=sparsity))
        free = _free_rows(seed, SHARES[sparsity], count)
        frames.append(free.assign(pruner=pruner, sparsity=sparsity))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(model="tiny-lm", job=frame["pruner"] + frame["sparsity"], settings=settings)


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
        for temperature in (0.7, 1.0)
    ]
    frame = pd.DataFrame(grid, columns=["prompt", "step", "layer", "sublayer", "temperature"])
    depth = 1.5 * np.exp(-frame["layer"] / 2.0) + 0.05 + 0.1 * (frame["layer"] / layers) ** 4
    noise = np.exp(rng.normal(0, 0.5, len(frame)))
    size = np.where(frame["sublayer"] == "mlp", 1.6, 1.0)
    orth = strength * size * noise * 0.1 * depth
    return _measures(frame.assign(protocol="layer"), orth, rng)


def _free_rows(seed: int, share: float, count: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    grid = [
        (name, step, temperature)
        for name, length in zip(prompts(count), _lengths(count), strict=True)
        for step in range(length)
        for temperature in (0.7, 1.0)
    ]
    frame = pd.DataFrame(grid, columns=["prompt", "step", "temperature"]).assign(layer=-1, sublayer="final")
    orth = share * np.exp(rng.normal(0, 0.5, len(frame))) * (0.15 + 0.06 * frame["step"])
    return _measures(frame.assign(protocol="free_running"), orth, rng)


def _measures(frame: pd.DataFrame, orth: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    noise = np.exp(rng.normal(0, 0.3, len(frame)))
    variance = 40 * orth * noise / frame["temperature"] ** 2
    exact = {
        "cos_h": 1 / np.sqrt(1 + orth),
        "cos_z": 1 / np.sqrt(1 + 0.6 * orth),
        "cos_p": np.exp(-variance / 2 * noise),
        "kl": variance / 2 / noise,
    }
    estimates = {
        "est_cos_h": 1 - orth / 2,
        "est_cos_z": 1 - 0.3 * orth,
        "est_cos_p": 1 - variance / 2,
        "est_kl": variance / 2,
    }
    return frame.assign(**exact, **estimates, orth_h=orth, orth_z=0.6 * orth, par_h=orth / 9, par_z=orth / 12)


def trajectories_table(setups: Sequence[tuple[str, str]] = SETUPS, count: int = 12) -> pd.DataFrame:
    """Greedy tokens of both models: prompt i differs first at step i + 2 (never at sparsity 0)."""
    rows = [
        (pruner, sparsity, name, step, step, step + 1000 * (step >= index + 2 and sparsity != "0"))
        for pruner, sparsity in setups
        for index, (name, length) in enumerate(zip(prompts(count), _lengths(count), strict=True))
        for step in range(length)
    ]
    frame = pd.DataFrame(rows, columns=["pruner", "sparsity", "prompt", "step", "dense_token", "pruned_token"])
    texts = {"dense_text": "a", "pruned_text": "b", "model": "tiny-lm", "settings": SETTINGS}
    return frame.assign(**texts, job=frame["pruner"] + frame["sparsity"])


def save(outputs: Path, **tables: pd.DataFrame) -> Path:
    (outputs / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(outputs / "tables" / f"{name}.parquet")
    return outputs


def fill(outputs: Path, setups: Sequence[tuple[str, str]] = SETUPS) -> Path:
    """All three tables of a small model."""
    tables = {"scores": scores_table(setups), "trajectories": trajectories_table(setups, 4)}
    return save(outputs, measures=measures_table(setups, layers=5, count=4), **tables)
