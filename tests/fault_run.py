"""Sweeps that are killed, damaged, run at the same time and cut off from their disk: is anything lost, or wrong?

    make faults FAULTS="--kills 100 --corruptions 20 --sweeps 4 --full-disks 3"

Every result is compared, bit for bit, with those of a sweep that nobody disturbed. Ends with status 1 if anything is
lost or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from conftest import DRAWN, TINY
from fault_kinds import artifact_of, damage_file, gone_at_once, small_disk
from fault_state import content, differences, finished, halves, litter, work

from pipeline.store.integrity import damage

_NO_FLOCK = Path(__file__).parent / "no_flock"
SWEEP = ("pruner=magnitude,attn_drop,sparsegpt", "sparsity=0.25,0.5")
# Of a sweep that hangs.
_SECONDS = 300
# A sweep of this size needs about 6 MiB.
_SMALL_DISKS = ("600k", "1m", "2m", "3m", "4m")


@dataclass
class Findings:
    """Of one kind of fault: how often it was made, where it hit, and what came of it."""

    fault: str
    times: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return sum(map(len, (self.lost, self.wrong, self.left, self.other)))

    def compare(self, expected: dict[str, object], outputs: Path) -> None:
        lost, wrong = differences(expected, outputs)
        self.lost += lost
        self.wrong += wrong + halves(outputs)
        self.left += litter(outputs)
        self.compared += len(expected)

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.fault}: {self.times} times, {self.compared} results compared: {len(self.lost)} lost, "
            f"{len(self.wrong)} wrong, {len(self.left)} files left over, {len(self.other)} other problems"
        )
        yield "  where: " + ", ".join(f"{name} {count}" for name, count in self.hits.most_common())
        for what in ("lost", "wrong", "left", "other"):
            yield from (f"  {what}: {name}" for name in getattr(self, what))


class Faults:
    """All rounds, in a folder of their own."""

    def __init__(self, folder: Path, seed: int, sweep: Sequence[str] = SWEEP) -> None:
        self.folder, self.chance, self.sweep = folder, random.Random(seed), sweep
        self.expected: dict[str, object] = {}
        self.seconds = 0.0

    # --- sweeps --------------------------------------------------------------------------------------------------

    def start(self, outputs: Path, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline.main", *TINY, DRAWN, f"outputs={outputs}", "-m", *self.sweep]
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, start_new_session=True
        )

    def finish(self, outputs: Path, findings: Findings, status: int = 0) -> str:
        """A sweep that nobody disturbs. Returns what it says."""
        return self._ended(self.start(outputs), findings, status)

    def _ended(self, sweep: subprocess.Popen[str], findings: Findings, status: int = 0) -> str:
        try:
            said, _ = sweep.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            gone_at_once(sweep.pid)
            findings.other.append("a sweep did not come to an end")
            return sweep.communicate()[0]
        if sweep.returncode != status:
            findings.other.append(f"exit status {sweep.returncode} instead of {status}:\n{said[-3000:]}")
        return said

    @property
    def _first(self) -> Path:
        return self.folder / "undisturbed 1"

    def undisturbed(self, count: int) -> Findings:
        """What there is to compare with; and that further sweeps elsewhere give the same."""
        found = Findings("undisturbed")
        for number in range(1, count + 1):
            outputs, began = self.folder / f"undisturbed {number}", time.monotonic()
            self.finish(outputs, found)
            self.seconds = time.monotonic() - began
            found.times += 1
            self.expected = self.expected or content(outputs)
            found.compare(self.expected, outputs)
        return found

    def _ahead(self, outputs: Path) -> list[str]:
        """Stages of which something is still to be made."""
        missing = [name for name in self.expected if name.startswith("store/") and not (outputs / name).exists()]
        return sorted({name.split("/")[1] for name in missing})

    # --- kills ---------------------------------------------------------------------------------------------------

    def kills(self, count: int) -> Findings:
        """Kill whatever runs, at random moments, and give the same command again, until it comes through."""
        found, outputs = Findings("kill -9"), self.folder / "killed"
        before: dict[str, object] = {}
        while found.times < count:
            sweep = self.start(outputs)
            if (hit := self._kill_somewhere(sweep, outputs)) is not None:
                found.times += 1
                found.hits[hit] += 1
                found.wrong += halves(outputs)
                print(f"kill {found.times}: {hit}", flush=True)
            sweep.communicate()
            now = finished(outputs)
            found.other += [f"{name} was computed again" for name, when in before.items() if now.get(name) != when]
            before = now
            if hit is None:
                self._next_start(outputs, found)
                shutil.rmtree(outputs)
                before = {}
        self._next_start(outputs, found)
        return found

    def _next_start(self, outputs: Path, found: Findings) -> None:
        self.finish(outputs, found)
        found.compare(self.expected, outputs)

    def _kill_somewhere(self, sweep: subprocess.Popen[str], outputs: Path) -> str | None:
        """Returns where it was hit, or None if it had come to its end before."""
        aims = [*self._ahead(outputs), "records", "figures", None, None]
        locks, aim = outputs / "store" / ".locks", self.chance.choice(aims)
        moment = time.monotonic() + self.chance.uniform(0.2, self.seconds)
        while sweep.poll() is None:
            held = [path.name.split(".")[0].partition("-")[0] for path in locks.glob("*.lock")]
            if (aim in held) or (aim is None and time.monotonic() > moment):
                time.sleep(self.chance.choice((0, 0, self.chance.uniform(0, 0.05))))
                whom = self._kill_some(sweep.pid)
                return (
                    f"{next((name for name in held if name != 'job'), 'between stages' if held else 'start')} ({whom})"
                )
            time.sleep(0.002)
        return None

    def _kill_some(self, pid: int) -> str:
        """All processes at once, as when the power fails; the sweep's alone; or that of a job, and all of it then."""
        whom = self.chance.choice(("everything", "everything", "sweep", "job"))
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(pid).children(recursive=True)
            if whom == "job":
                for process in family[-1:]:
                    process.kill()
                time.sleep(self.chance.uniform(0, 2))
            if whom == "sweep":
                psutil.Process(pid).kill()
                psutil.wait_procs(family, timeout=60)
        gone_at_once(pid)
        return whom

    # --- corruption ----------------------------------------------------------------------------------------------

    def corruptions(self, count: int, at_once: int = 1) -> Findings:
        """Damage files of a finished sweep, and give the same command again: told, and mended."""
        found, outputs = Findings("corruption"), self.folder / "damaged"
        shutil.copytree(self._first, outputs)
        while found.times < count:
            files = [path for path in outputs.glob("store/[!.]*/*/**/*") if path.is_file()]
            records = [*outputs.glob("jobs/*.json")]
            chosen = [self.chance.choice(self.chance.choice((files, files, files, records))) for _ in range(at_once)]
            # Of one artifact, one file: it is set aside once.
            damaged = {artifact_of(path, outputs): path for path in chosen}.values()
            for path in damaged:
                how, what = damage_file(path, self.chance), path.relative_to(outputs)
                print(f"corruption: {how} {what}", flush=True)
                found.hits[f"{how} {what.parts[0] if what.parts[0] != 'store' else what.parts[1]}"] += 1
            found.times += len(damaged)
            said = self.finish(outputs, found)
            told = said.count("quarantined as") + said.count("is skipped")
            for path in self._unread(damaged, outputs, found):
                told += 1
                shutil.rmtree(path)
                shutil.copytree(self._first / path.relative_to(outputs), path)
            if told < len(damaged):
                found.other.append(f"{told} warnings of {len(damaged)} damaged files:\n{said}")
            found.compare(self.expected, outputs)
        return found

    def _unread(self, damaged: Iterable[Path], outputs: Path, found: Findings) -> list[Path]:
        """Artifacts that the sweep had no need of any more, and left as they are: asked, it is told of them."""
        artifacts = [artifact_of(path, outputs) for path in damaged]
        left = [path for path in artifacts if path.is_dir() and damage(path) is not None]
        if not left:
            return []
        command = [sys.executable, "-m", "pipeline.results", "verify", "--outputs", str(outputs)]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        found.hits["told when verified"] += len(left)
        if not verified.returncode or not all(path.name in verified.stdout for path in left):
            found.other.append(f"not told of {left} when verified:\n{verified.stdout}{verified.stderr}")
        return left

    # --- several at once -----------------------------------------------------------------------------------------

    def together(self, count: int) -> Findings:
        """Sweeps at the same time on one folder, without locks of the kernel: nothing is computed twice."""
        found, outputs = Findings("sweeps at once"), self.folder / "shared"
        sweeps = [self.start(outputs, PYTHONPATH=str(_NO_FLOCK)) for _ in range(count)]
        for sweep in sweeps:
            self._ended(sweep, found)
            found.times += 1
        found.compare(self.expected, outputs)
        done, unique = work(outputs), {name for name in self.expected if name.startswith("store/")}
        found.hits["computed"], found.hits["to compute"] = sum(done.values()), len(unique)
        found.other += [f"{name} was computed {times} times" for name, times in done.items() if times > 1]
        found.other += [f"nobody says that it has computed {name}" for name in unique if name[6:] not in done]
        return found

    def together_and_killed(self, count: int) -> Findings:
        """The same, and all but one are killed on the way."""
        found, outputs = Findings("sweeps at once, killed"), self.folder / "shared and killed"
        sweeps = [self.start(outputs) for _ in range(count)]
        for sweep in sweeps[1:]:
            hit = self._kill_somewhere(sweep, outputs)
            found.hits[hit or "not hit"] += 1
            found.times += hit is not None
            sweep.communicate()
        self._ended(sweeps[0], found)
        self._next_start(outputs, found)
        return found

    # --- disk ----------------------------------------------------------------------------------------------------

    def full_disks(self, count: int) -> Findings:
        """A disk that is too small, then one that is not: told, and gone on with."""
        found = Findings("full disk")
        for number in range(count):
            outputs = self.folder / f"disk {number}"
            size = _SMALL_DISKS[(number * 2 + 1) % len(_SMALL_DISKS)]
            with small_disk(outputs, size) as mounted:
                if not mounted:
                    found.hits["skipped: a small disk cannot be mounted here"] += 1
                    break
                said = self.finish(outputs, found, status=1)
                found.times += 1
                found.hits[f"{size}: {said.count(': ok after')} jobs ok before"] += 1
                if "disk is full" not in said:
                    found.other.append(f"a full disk is not told:\n{said[-3000:]}")
                if "Traceback" in said:
                    found.other.append(f"a traceback on the screen:\n{said}")
                subprocess.run(["mount", "-o", "remount,size=64m", str(outputs)], check=True)
                self._next_start(outputs, found)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("kills", 100), ("corruptions", 20), ("sweeps", 4), ("full-disks", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"(default: {count})")
    chosen = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        faults = Faults(Path(folder), chosen.seed)
        rounds = [
            faults.undisturbed(2),
            faults.kills(chosen.kills),
            faults.corruptions(chosen.corruptions),
            faults.together(chosen.sweeps),
            faults.together_and_killed(chosen.sweeps),
            faults.full_disks(chosen.full_disks),
        ]
    for found in rounds:
        print(*found.lines(), sep="\n")
    bad = sum(found.bad for found in rounds)
    print(f"{bad or 'nothing'} lost or wrong, in {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
