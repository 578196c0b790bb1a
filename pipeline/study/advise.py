"""``python -m pipeline.study.advise``: advice on how far each pruner can go before a kind of task suffers."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import plain
from pipeline.common.quiet import quiet_libraries
from pipeline.common.stopping import Stopped, stoppable
from pipeline.plot.one_figure import write
from pipeline.run.arguments import take_folders
from pipeline.study.advice.jobs import Execute, Refused, run_jobs
from pipeline.study.advice.ladder import MOST_RUNGS
from pipeline.study.advice.question import (
    EVALUATION,
    OWN,
    PROTOCOLS,
    PRUNERS,
    TASKS,
    Question,
    own_words,
    read_question,
)
from pipeline.study.advice.recipe import NAME, read_recipe, write_recipe

if TYPE_CHECKING:
    from pipeline.study.advice.answer import Findings

FOLDER = "advice"
RUN = "run"
HELP = f"""How far can each pruner go before generation, multiple choice or retrieval suffers, for one model?

  python -m pipeline.study.advise model=smollm2 keep=0.9 tasks=generative
  python -m pipeline.study.advise model=hf model.path=DIR tasks=choice pruners=[wanda,shortgpt] task.limit=16
  python -m pipeline.study.advise {RUN}=outputs/{FOLDER}/smollm2/{NAME} export.path=DIR

Every pruner is tried at up to {MOST_RUNGS} sparsities. The divergence of the pruned model's predictions from the dense
model's is measured at each, which is cheap; scores are evaluated at a few informative sparsities and predicted for the
others. The result is a table, a figure and a configuration to run, in outputs/{FOLDER}/MODEL. Running the same command
again reuses what is stored.

  keep          fraction of the dense score above chance to retain; default 0.9
  tasks         {", ".join(TASKS)}; default generative
  pruners       which to try; default [{",".join(PRUNERS)}]
  evaluations   settings evaluated per pruner, at most; default 3
  task          the task suite; default matched, or retrieval for retrieval tasks
  calibration   text for the pruners; default trajectories, which the dense model writes itself
  {RUN}           a {NAME} to run; further arguments override it

Other settings are passed on to every job, one value each: model, task.limit, outputs, hydra/launcher, wandb.mode, ...;
see python -m pipeline.main --help.
"""


def main(arguments: Sequence[str] | None = None, execute: Execute = run_jobs) -> int:
    """Run the command line and return its exit status.

    It is 2 for a bad command line, 1 if jobs failed or nothing can be advised, 128 plus the signal if stopped, else 0.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("--help", "-h") for word in words):
        print(HELP, end="")
        return 0
    if any(word.partition("=")[0] == RUN for word in words):
        return _run_recipe(words)
    quiet_libraries()
    words, found = take_folders(words)
    question, bad = read_question(words)
    if question is None or found:
        return _refuse([*found, *bad])
    try:
        with stoppable():
            return _advise(question, execute)
    except KeyboardInterrupt as stop:
        print("interrupted: finished jobs are stored; run the same command again to resume", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130


def _refuse(found: Sequence[str]) -> int:
    print(
        f"{len(found)} problem{'s' * (len(found) > 1)}:",
        *(f"  - {problem}" for problem in found),
        sep="\n",
        file=sys.stderr,
    )
    return 2


def _run_recipe(words: Sequence[str]) -> int:
    """Run a recommended.yaml with ``pipeline.main``; further words override its own."""
    files = [word.removeprefix(f"{RUN}=") for word in words if word.startswith(f"{RUN}=")]
    others = [word for word in words if not word.startswith(f"{RUN}=")]
    found = [
        f"{word}: cannot be combined with {RUN}=...; leave one of them out"
        for word in others
        if word.partition("=")[0] in OWN
    ]
    if len(files) != 1:
        found.append(f"give {RUN}= once, with the path of a {NAME}")
    try:
        recipe = [word for file in files[:1] for word in read_recipe(Path(file))]
    except ValueError as error:
        found.append(str(error))
    if found:
        return _refuse(found)
    from pipeline.run.command import main as run

    sys.argv[1:] = [*recipe, *others]
    return run()


def _advise(question: Question, execute: Execute) -> int:
    # Deferred: the import takes seconds, and mistakes are reported before.
    from pipeline.study.advice.steps import NoAdvice, investigate

    try:
        findings, failures, outputs = investigate(question, execute)
        _show(question, findings, outputs / FOLDER / re.sub(r"[^\w.+-]+", "-", findings.model))
    except (NoAdvice, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        print(f"cannot give advice: {plain(error)}", file=sys.stderr)
        return 1
    shared: dict[tuple[str, str], list[str]] = {}
    for (pruner, sparsity), why in failures.items():
        shared.setdefault((pruner, why), []).append(sparsity)
    for (pruner, why), sparsities in shared.items():
        print(f"failed: {pruner} at {', '.join(sparsities)}: {why}", file=sys.stderr)
    return 1 if failures else 0


def _show(question: Question, findings: Findings, folder: Path) -> None:
    """Print the table, write figure, data and recommendation, and delete an earlier recommendation."""
    from pipeline.common.terminal import show_table
    from pipeline.run.summary import shown
    from pipeline.study.advice import answer, figure

    columns, rows = answer.table_rows(findings)
    show_table(answer.heading(findings), columns, rows, f"{findings.basis}\n{findings.settings}".strip())
    said, data = answer.sentences(findings), answer.selection(findings)
    print(*said, sep="\n")
    recipe = folder / NAME
    recipe.unlink(missing_ok=True)
    if recommended := findings.recommended():
        best = recommended[0]
        pruning = [f"pruner={best.pruner}", f"sparsity={best.rung.sparsity}"]
        job = [*own_words(question.given), *question.suite_words(question.suites[0]), *pruning, PROTOCOLS, EVALUATION]
        write_recipe(recipe, job, "\n".join(said))
        print(f"run it   python -m pipeline.study.advise {RUN}={shown(recipe)} export.path=DIR")
    if len(data.data):
        picture = write(folder, FOLDER, data, figure.draw)
        print(f"figure   {shown(picture)}\ntable    {shown(picture.with_suffix('.csv'))}")


if __name__ == "__main__":
    sys.exit(main())
