"""Command lines of every kind: sensible, odd and hostile, for tests that feed them to the check."""

from __future__ import annotations

from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.config.choices import CONF, choices_of
from pipeline.config.schema import EXPERIMENT, GROUPS, flatten

ODD_VALUES = [
    "", "''", "null", "true", "0", "-1", "1", "2", "0.5", "1e309", "-inf", "nan", "1e-320", "9" * 30, "2of4", "2:4",
    "8:2", "???", "[]", "[null]", "[[1]]", "[a,b]", "{}", "{a: 1}", "{a: {b: [1,{c: 2}]}}", "${seed}", "${nothing}",
    "${outputs}", "${oc.env:NOWHERE}", "${oc.decode:'{_target_: os.getcwd}'}", "{_target_: os.getcwd}",
    "${hydra:job.num}", "${sparsity}", "${now:%Y}", "..", "../..", "/", ".", "~", "~nobody-here", "/dev/null",
    "/dev/null/x", "/proc/self/mem", "a/../b", "1,2", "a,b", "choice(1,2)", "range(1,4)", "range(0,1000000000)",
    "shuffle(range(0,1000000000))", "interval(0,1)", "glob(*)", "sort(3,1)", "tag(a,choice(1))", "float(x)",
    "int(3.5)", "str([1])", "json_str({a: 1})", "é", "\u202e", "日本", "\U0001f9e8", "x" * 300, "x" * 20_000, "[" * 400,
    "{a: " * 60, "'unfinished", "\\'", "a b", "a\tb", "a\nb", "%s", "${", "}", "$", "@", ":", "=", "==", "#", "\x00",
    "\x1b[31m", "\udc80", "<script>",
]  # fmt: skip
HYDRAS = [
    "hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir",
    "hydra.searchpath", "hydra.callbacks", "hydra.callbacks.sweep._target_", "hydra.sweeper", "hydra.mode",
    "hydra.verbose", "hydra/launcher", "hydra.launcher", "hydra.launcher._target_", "hydra.launcher.jobs",
    "hydra/job_logging", "hydra.job_logging.handlers.file.filename", "hydra.runtime.output_dir", "hydra.job.name",
]  # fmt: skip


@cache
def known_keys() -> list[str]:
    """Every key of every choice, and the groups."""
    keys = {*GROUPS, EXPERIMENT, "capture", "measure", "perplexity", "wandb", "model.path", "task.include", "task.sets"}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for group in GROUPS:
            for choice in choices_of(group):
                raw: Any = OmegaConf.to_container(compose("config", overrides=[f"{group}={choice}"]), resolve=False)
                keys |= flatten(raw).keys()
    return sorted(keys)


def keys() -> st.SearchStrategy[str]:
    """Keys that there are, or nearly are, or that are Hydra's, or no key at all."""
    # Composed when the first is drawn, not when the tests are collected.
    known = st.deferred(lambda: st.sampled_from(known_keys()))
    near = st.tuples(known, st.sampled_from(["x", ".x", "[0]", ".0", "@x", "/y", "."])).map("".join)
    return st.one_of(known, known, known, near, st.sampled_from(HYDRAS), st.text(max_size=8))


def values() -> st.SearchStrategy[str]:
    """Values of every type as they are written, and texts that are none."""
    plain = st.one_of(st.integers().map(str), st.floats().map(str), st.booleans().map(str), st.text(max_size=12))
    lists = st.lists(plain, max_size=4).map(lambda items: f"[{','.join(items)}]")
    dicts = st.dictionaries(st.text("abc_", min_size=1, max_size=5), plain, max_size=3)
    choices = st.sampled_from(sorted({choice for group in GROUPS for choice in choices_of(group)}))
    written = dicts.map(lambda items: "{" + ",".join(f"{key}: {value}" for key, value in items.items()) + "}")
    return st.one_of(st.sampled_from(ODD_VALUES), choices, plain, lists, written)


def command_lines(most: int = 4) -> st.SearchStrategy[list[str]]:
    """A few words of a command line; keys may come twice."""
    form = st.sampled_from(
        ["{k}={v}"] * 6 + ["+{k}={v}", "++{k}={v}", "~{k}", "~{k}={v}", "{k}", "{k}:={v}", "{v}", "={v}"]
    )
    word = st.tuples(form, keys(), values()).map(
        lambda parts: parts[0].replace("{k}", parts[1]).replace("{v}", parts[2])
    )
    return st.lists(word, max_size=most)
