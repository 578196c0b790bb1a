"""Programs in the sandbox: honest ones run, hostile ones harm nothing and do not pass."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline import sandbox
from pipeline.sandbox import Limits, Outcome, run, run_all

REPOSITORY = Path(__file__).resolve().parents[1]
HERE = sandbox.unavailable()
isolated = pytest.mark.skipif(HERE is not None, reason=str(HERE))
QUICK = Limits(seconds=2, cpu_seconds=2)


def _run(program: str, limits: Limits = QUICK) -> Outcome:
    return run(textwrap.dedent(program), limits)


def _gone(marker: str) -> bool:
    """Whether no process has ``marker`` as an argument (any more)."""
    return all(marker not in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


def _wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.05)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@isolated
class TestHonestPrograms:
    def test_one_that_ends_passes_and_what_it_printed_is_kept(self):
        outcome = _run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
        assert (outcome.passed, outcome.reason) == (True, "passed")
        assert sorted(outcome.output.split()) == ["err", "out"]

    def test_it_is_a_main_program_with_the_whole_standard_library(self):
        outcome = _run("""
            import dataclasses, decimal, heapq, json, multiprocessing, pickle, re, sqlite3, tempfile, threading
            @dataclasses.dataclass
            class Point:
                x: int
            assert __name__ == "__main__" and pickle.loads(pickle.dumps(Point(1))) == Point(1)
            assert tempfile.TemporaryFile().write(b"scratch") == 7
            with multiprocessing.Pool(2) as pool:
                assert pool.map(abs, [-1, 2]) == [1, 2]
        """)
        assert outcome == Outcome(True, "passed", "")

    def test_the_text_is_compiled_as_it_is(self):
        """No future statement of the runner's own applies to it."""
        assert _run("def f(x: int): pass\nassert f.__annotations__ == {'x': int}").passed

    @pytest.mark.parametrize(
        ("program", "reason"),
        [
            ("assert 1 + 1 == 3, 'not\\nthree'", "AssertionError: not three"),
            ("assert False", "AssertionError"),
            ("def f(:", "SyntaxError: invalid syntax (<program>, line 1)"),
            ("raise KeyError('k')", "KeyError: 'k'"),
            ("raise ValueError('\\ud800')", "ValueError: ?"),
            ("input()", "EOFError: EOF when reading a line"),
            ("import torch", "ModuleNotFoundError: No module named 'torch'"),
            ("raise ValueError('x' * 10**6)", f"ValueError: {'x' * 188}"),
            ("class E(BaseException):\n    def __str__(self): raise self\nraise E", "E"),
            ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
        ],
    )
    def test_failing_ones_say_why_in_one_line(self, program: str, reason: str):
        outcome = _run(program)
        assert (outcome.passed, outcome.reason) == (False, reason)

    def test_several_keep_their_order(self):
        programs = [f"import time; time.sleep({0.2 - n / 20}); assert {n} % 2, {n}" for n in range(4)]
        assert [outcome.reason for outcome in run_all(programs, QUICK)] == [
            *("AssertionError: 0", "passed", "AssertionError: 2", "passed")
        ]
        assert run_all([]) == []

    def test_a_long_program_is_no_obstacle(self):
        assert _run(f"text = {'x' * 2**20!r}\nassert len(text) == 2**20").passed


@isolated
class TestForgedSuccess:
    @pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "exit_quietly()", "os.kill(os.getpid(), 9)"])
    def test_leaving_before_the_tests_is_no_pass(self, leave: str):
        outcome = _run(f"""
            import os, sys
            def exit_quietly(): raise SystemExit
            {leave}
            assert False
        """)
        assert not outcome.passed
        assert "left before its end" in outcome.reason or outcome.reason == "ended by SIGKILL"

    def test_neither_is_what_it_prints_or_writes_to_descriptors(self):
        outcome = _run("""
            import os, sys
            print("passed", flush=True)
            for descriptor in range(1, 64):
                try:
                    os.write(descriptor, b"passed\\nstarted\\npassed\\n")
                except OSError:
                    pass
            os._exit(0)
        """)
        assert not outcome.passed

    def test_a_forked_child_does_not_speak_for_its_parent(self):
        outcome = _run("import os\nif os.fork(): raise ValueError('the parent failed')")
        assert (outcome.passed, outcome.reason) == (False, "ValueError: the parent failed")

    def test_exit_handlers_and_threads_do_not_turn_a_failure(self):
        outcome = _run("""
            import atexit, os, threading
            atexit.register(os._exit, 0)
            threading.Thread(target=lambda: threading.Event().wait(60)).start()
            assert False, "failed"
        """)
        assert (outcome.passed, outcome.reason) == (False, "AssertionError: failed")


@isolated
class TestLimits:
    def test_an_endless_loop_ends_by_the_clock(self):
        outcome = _run("while True: pass", Limits(seconds=0.5))
        assert (outcome.passed, outcome.reason) == (False, "no answer within 0.5 s")

    def test_sleeping_with_everything_closed_ends_too(self):
        outcome = _run("import os, time\nos.closerange(0, 64)\ntime.sleep(60)", Limits(seconds=0.5))
        assert (outcome.passed, outcome.reason) == (False, "no answer within 0.5 s")

    def test_computing_is_limited_by_itself(self):
        outcome = _run("while True: pass", Limits(seconds=30, cpu_seconds=1))
        assert outcome.reason == "no answer within 1 s of computing"

    def test_a_fork_bomb_gets_no_further_than_its_processes(self):
        outcome = _run(
            """
            import os, time
            made = 0
            while True:
                try:
                    if os.fork() == 0:
                        time.sleep(60)
                    made += 1
                except BlockingIOError:
                    assert made < 12, made
                    raise
            """,
            Limits(processes=12),
        )
        assert (outcome.passed, outcome.reason.split(":")[0]) == (False, "BlockingIOError")

    def test_a_fork_bomb_that_never_stops_is_stopped(self):
        before = _children()
        outcome = _run(
            """
            import os
            while True:
                try: os.fork()
                except OSError: pass
            """,
            Limits(seconds=1),
        )
        assert (outcome.passed, outcome.reason) == (False, "no answer within 1 s")
        assert _children() <= before

    def test_a_memory_bomb(self):
        outcome = _run("hoard = [0] * 10**9")
        assert (outcome.passed, outcome.reason) == (False, "more memory than 1024 MiB")

    def test_many_small_memory_bombs(self):
        outcome = _run(
            """
            import os, time
            for _ in range(6):
                if os.fork() == 0:
                    hoard = b"x" * (60 << 20)
                    time.sleep(60)
            time.sleep(60)
            """,
            Limits(seconds=30, memory_mib=200),
        )
        assert (outcome.passed, outcome.reason) == (False, "more memory than 200 MiB")

    def test_memory_that_processes_share_counts_once(self):
        outcome = _run(
            """
            import os, time
            shared = b"x" * (80 << 20)
            for _ in range(4):
                if os.fork() == 0:
                    time.sleep(60)
            time.sleep(0.5)
            """,
            Limits(seconds=30, memory_mib=200),
        )
        assert outcome == Outcome(True, "passed", "")

    def test_endless_output_is_cut_and_ends(self):
        outcome = _run("while True: print('x' * 1000)", Limits(file_mib=1, output_kib=3))
        assert (outcome.passed, outcome.reason) == (False, "more output than 1 MiB")
        assert len(outcome.output) == 3 * 1024

    def test_much_output_below_the_limit_is_no_failure(self):
        outcome = _run("print('x' * 500_000)", Limits(file_mib=1, output_kib=1))
        assert (outcome.passed, len(outcome.output)) == (True, 1024)

    @pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
    def test_the_disk_cannot_be_filled(self, folder: str):
        one = _run(f"open('{folder}/big', 'wb').write(bytes(3 << 20))", Limits(file_mib=2))
        many = _run(f"for n in range(9): open(f'{folder}/{{n}}', 'wb').write(bytes(1 << 20))", Limits(file_mib=2))
        assert one.reason.startswith("OSError: [Errno 27]") and many.reason.startswith("OSError: [Errno 28]")

    def test_limits_cannot_be_raised_again(self):
        outcome = _run("""
            import resource
            for name in ("AS", "NPROC", "FSIZE", "NOFILE", "CPU"):
                number = getattr(resource, "RLIMIT_" + name)
                soft, hard = resource.getrlimit(number)
                try:
                    resource.setrlimit(number, (hard + 1, hard + 1))
                except (ValueError, PermissionError):
                    continue
                raise SystemError(name)
        """)
        assert outcome.reason == "passed"


@isolated
class TestWhatIsOutOfReach:
    def test_files_outside_survive_an_attempt_to_delete_everything(self, tmp_path: Path):
        canary = tmp_path / "canary"
        canary.write_text("alive")
        outcome = _run(
            f"""
            import os, shutil
            assert not os.path.exists({str(canary)!r}) and not os.path.exists({str(REPOSITORY / "README.md")!r})
            library = os.path.dirname(os.__file__)
            for folder in ({str(tmp_path)!r}, {str(REPOSITORY)!r}, library + "/json", "/usr/share/doc", "/tmp", "/dev"):
                shutil.rmtree(folder, ignore_errors=True)
            for folder in ("/usr", "/lib", "/dev", "/proc", "/", library, {sys.base_prefix!r}):
                try:
                    open(os.path.join(folder, "mine"), "w")
                except OSError:
                    continue
                raise SystemError(folder)
            """,
            Limits(seconds=30),
        )
        assert outcome.reason == "passed"
        assert canary.read_text() == "alive" and Path(os.__file__).is_file() and (REPOSITORY / "README.md").is_file()

    def test_only_the_system_and_the_interpreter_are_visible(self):
        outcome = _run("""
            import os
            print(*os.listdir("/"))
            print(*os.listdir(os.path.expanduser("~")), os.getcwd())
        """)
        top, scratch = outcome.output.splitlines()
        visible = {
            "usr",
            "bin",
            "lib",
            "lib32",
            "lib64",
            "proc",
            "dev",
            "tmp",
            Path(sys.base_prefix).resolve().parts[1],
        }
        assert outcome.passed and set(top.split()) <= visible
        below = Path(sys.base_prefix).resolve().parts
        assert scratch.split() in ([["/tmp"]] if below[1] != "tmp" else [["/tmp"], [below[2], "/tmp"]])

    @pytest.mark.skipif(Path.home() == Path("/"), reason="there is no home folder")
    def test_the_home_folder_shows_nothing_but_the_way_to_the_interpreter(self):
        outcome = _run(f"""
            import os
            home, prefix = {str(Path.home().resolve())!r}, {str(Path(sys.base_prefix).resolve())!r}
            for folder, folders, files in os.walk(home):
                folders[:] = [name for name in folders if os.path.join(folder, name) != prefix]
                assert not files, (folder, files)
        """)
        assert outcome.reason == "passed"

    def test_secrets_in_the_environment(self, monkeypatch: pytest.MonkeyPatch):
        secret = uuid.uuid4().hex
        monkeypatch.setenv("SOME_API_KEY", secret)
        outcome = _run("""
            import glob, os
            print(dict(os.environ))
            for path in glob.glob("/proc/[0-9]*/environ"):
                try:
                    print(open(path).read())
                except OSError:
                    pass
        """)
        assert outcome.passed and "HOME" in outcome.output
        assert secret not in outcome.output and "SOME_API_KEY" not in outcome.output

    def test_other_processes(self):
        outcome = _run(f"""
            import os, signal
            numbers = {{int(name) for name in os.listdir("/proc") if name.isdigit()}}
            assert len(numbers) <= 3 and {os.getpid()} not in numbers, numbers
            for number in (os.getppid(), 1, {os.getpid()}, {os.getppid()}, -1):
                try:
                    os.kill(number, signal.SIGKILL)
                except OSError:
                    pass
            assert os.getppid() == 1
        """)
        assert outcome.reason == "passed"

    def test_accounts(self):
        outcome = _run("""
            import os
            assert 0 not in (*os.getresuid(), *os.getresgid(), *os.getgroups())
            for path in ("/etc/shadow", "/etc/passwd", "/root/.ssh", "/proc/1/mem", "/dev/mem", "/dev/sda", "/dev/vda"):
                try:
                    open(path, "rb").read(1)
                except OSError:
                    continue
                raise SystemError(path)
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            assert all(int(status[name], 16) == 0 for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"))
            assert int(status["NoNewPrivs"]) == 1
        """)
        assert outcome.reason == "passed"

    def test_becoming_root_and_making_namespaces(self):
        outcome = _run("""
            import ctypes, os
            for change in (os.setuid, os.setgid, os.seteuid):
                try:
                    change(0)
                except OSError:
                    continue
                raise SystemError(change)
            libc = ctypes.CDLL(None, use_errno=True)
            new_user, new_mount = 0x10000000, 0x00020000
            assert libc.unshare(new_user) == -1 and libc.unshare(new_mount) == -1
            assert libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == -1
            assert libc.umount2(b"/usr", 2) == -1 and libc.chroot(b"/tmp") == -1
        """)
        assert outcome.reason == "passed"

    def test_the_way_out_by_parent_folders_and_links(self, tmp_path: Path):
        canary = tmp_path / "canary"
        canary.write_text("alive")
        outcome = _run(f"""
            import os
            target = {str(canary)!r}
            os.symlink(target, "link")
            os.symlink("/proc/1/root" + target, "through")
            ways = [target, "link", "through", "../" * 30 + target, "/proc/self/root" + target, "/proc/1/cwd" + target]
            for way in ways:
                for mode in ("r", "r+"):
                    try:
                        open(way, mode)
                    except OSError:
                        continue
                    raise SystemError(way)
        """)
        assert outcome.reason == "passed"
        assert canary.read_text() == "alive"

    def test_the_network(self):
        name = f"\0{uuid.uuid4().hex}"
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
            server.setblocking(False)
            local.bind(name)
            local.listen()
            local.setblocking(False)
            outcome = _run(f"""
                import socket
                attempts = [
                    (socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                    (socket.AF_INET, ("192.0.2.1", 80)),
                    (socket.AF_UNIX, {name!r}),
                ]
                for family, address in attempts:
                    with socket.socket(family) as client:
                        client.settimeout(1)
                        try:
                            client.connect(address)
                        except OSError:
                            continue
                        raise SystemError(address)
                assert [name for _, name in socket.if_nameindex()] == ["lo"]
            """)
            assert outcome.reason == "passed"
            for listening in (server, local):
                with pytest.raises(BlockingIOError):
                    listening.accept()

    def test_nothing_is_left_running(self):
        marker = uuid.uuid4().hex
        outcome = _run(f"""
            import os, subprocess, sys, time
            for _ in range(3):
                subprocess.Popen(
                    [sys.executable, "-c", "import time; time.sleep(600)", "{marker}"], start_new_session=True
                )
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(600)
                os._exit(0)
        """)
        assert outcome.passed
        assert _gone(marker)

    def test_nothing_is_left_of_one_that_was_stopped(self):
        marker, before = uuid.uuid4().hex, _children()
        outcome = _run(
            f"""
            import subprocess, sys
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
            """,
            Limits(seconds=0.5),
        )
        assert outcome.reason == "no answer within 0.5 s"
        assert _gone(marker) and _children() <= before

    def test_it_ends_with_the_process_that_started_it(self):
        marker = uuid.uuid4().hex
        sleep = f"[sys.executable, '-c', 'import time; time.sleep(300)', {marker!r}]"
        program = f"import subprocess, sys; subprocess.run({sleep})"
        starter = subprocess.Popen(
            [sys.executable, "-c", f"from pipeline.sandbox import Limits, run; run({program!r}, Limits(seconds=300))"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        try:
            _wait_until(lambda: not _gone(marker))
        finally:
            starter.kill()
            starter.wait()
        _wait_until(lambda: _gone(marker))

    def test_no_descriptors_leak_into_it_or_stay_behind(self):
        _run("pass")
        before = len(os.listdir("/proc/self/fd"))
        outcome = _run("""
            import os
            found = {}
            for name in os.listdir("/proc/self/fd"):
                try:
                    found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
                except FileNotFoundError:
                    pass  # the one that listed them
            assert found.pop(0) == "/dev/null" and len(found) == 3 and found[1] == found[2], found
            assert all(where.startswith("pipe:") for where in found.values()), found
        """)
        assert outcome.reason == "passed"
        assert len(os.listdir("/proc/self/fd")) == before


class TestWithoutIsolation:
    @pytest.fixture(autouse=True)
    def _ask_again(self):
        sandbox.unavailable.cache_clear()
        yield
        sandbox.unavailable.cache_clear()

    def test_nothing_runs_without_the_tool(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ValueError, match="without bubblewrap: install it"):
            run("pass")
        with pytest.raises(ValueError, match="without bubblewrap: install it"):
            run_all(["pass"])

    @pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
    def test_nothing_runs_with_a_tool_that_cannot_isolate(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        tool = tmp_path / "bwrap"
        tool.write_text("#!/bin/sh\necho 'bwrap: Unknown option --disable-userns' >&2\nexit 1\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        with pytest.raises(ValueError, match="Unknown option --disable-userns.*install bubblewrap 0.8 or newer"):
            run("pass")

    def test_elsewhere_than_on_linux_it_says_so(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert "Linux only" in str(sandbox.unavailable())


@isolated
def test_a_sandbox_that_fails_to_start_is_no_verdict_on_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert run("pass").passed
    tool = tmp_path / "bwrap"
    tool.write_text("#!/bin/sh\necho 'bwrap: no more namespaces' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match="could not be set up: bwrap: no more namespaces"):
        run("pass")
