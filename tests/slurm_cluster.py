"""Slurm itself as a cluster of one node on loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PARTITION, OTHER = "main", "preempting"
SECONDS = 30
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class NoSlurm(Exception):
    """Why there is no cluster here."""


@dataclass
class Cluster:
    """A running cluster: ``environment`` is what a process needs in order to use it."""

    folder: Path
    node: str = field(default_factory=lambda: socket.gethostname().partition(".")[0])

    @property
    def environment(self) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return outside | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def ask(self, *command: str) -> str:
        """What a Slurm command prints. Raises CalledProcessError if it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        """Of all jobs that are there, by their id: 3, or 3_1 for an element of an array."""
        listed = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        return dict(line.split() for line in listed.splitlines())

    def start_again(self, job: str) -> None:
        """Let a job that is being put back into the queue start at once, and not after Slurm's two minutes."""
        _wait(lambda: self.states()[job] == "PENDING")
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def processes(self) -> list[psutil.Process]:
        """The daemons, the jobs, and what those have started."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        # Daemons write their title over their environment, but stay in the folder.
        with suppress(psutil.Error):
            if process.cwd() == str(self.folder):
                return True
        with suppress(psutil.Error):
            return process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
        return False


@contextmanager
def cluster(cpus: int = 4) -> Iterator[Cluster]:
    """Start one, and end it with all that it runs. Raises NoSlurm, with the reason, where that cannot be done."""
    if missing := [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]:
        raise NoSlurm(f"{', '.join(missing)} not found: `make slurm` installs Debian's Slurm")
    # Sockets have to be reachable by all, and their paths short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o711)
    given = Cluster(folder)
    try:
        try:
            _start(given, cpus)
        except TimeoutError as error:
            said = [line for path in sorted(folder.glob("*.out")) for line in path.read_text().splitlines()[-3:]]
            raise NoSlurm(f"the daemons do not start here: {' / '.join(said)}") from error
        yield given
    finally:
        _stop(given)
        shutil.rmtree(folder, ignore_errors=True)


def _start(given: Cluster, cpus: int) -> None:
    folder = given.folder
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, sock = folder / "munge.key", folder / "munge.socket"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller, node = _free_ports(2)
    settings = _settings(given, cpus, controller, node, sock)
    (folder / "slurm.conf").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    files = {name: folder / f"munged.{name}" for name in ("pid", "seed", "log")}
    options = [f"--key-file={key}", *(f"--{name}-file={path}" for name, path in files.items())]
    _daemon(given, "munged", "--foreground", f"--socket={sock}", *options)
    _wait(sock.exists)
    _daemon(given, "slurmctld", "-D")
    _daemon(given, "slurmd", "-D")
    _wait(lambda: given.ask("sinfo", "--noheader", f"--partition={PARTITION}", "--format=%T") == "idle")


def _settings(given: Cluster, cpus: int, controller: int, node: int, sock: Path) -> Mapping[str, object]:
    folder, user = given.folder, psutil.Process().username()
    return {
        "ClusterName": "test",
        "SlurmctldHost": f"{given.node}(127.0.0.1)",
        "SlurmctldPort": controller,
        "SlurmdPort": node,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={sock}",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        # Nothing here needs control groups or more than this machine's loopback.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        "SlurmctldParameters": "config_overrides",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "KillWait": 5,
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=1",
        "NodeName": f"{given.node} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN",
        "PartitionName": f"{PARTITION} Nodes=ALL Default=YES MaxTime=60 PriorityTier=1",
        "PartitionName ": f"{OTHER} Nodes=ALL MaxTime=60 PriorityTier=2",
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _daemon(given: Cluster, program: str, *options: str) -> None:
    """In the foreground: a child, which ends with this process however that ends."""
    with (given.folder / f"{program}.out").open("wb") as out:
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", str(shutil.which(program, path=_PATH)), *options],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=given.environment,
            cwd=given.folder,
            start_new_session=True,
        )


def _wait(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        with suppress(subprocess.SubprocessError):
            if true():
                return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def _stop(given: Cluster) -> None:
    """Kill everything, and wait until it is gone. What slurmd starts does not end with it."""
    deadline = time.monotonic() + SECONDS
    while (left := given.processes()) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        # Children are waited for, too, so that no zombies stay.
        psutil.wait_procs(left, timeout=0.2)
