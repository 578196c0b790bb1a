"""Programs in the sandbox: honest ones run, none gets more than its share, and success cannot be forged."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandboxed import children, isolated, run_text

from pipeline.evaluate.code import sandbox
from pipeline.evaluate.code.sandbox import Limits, Outcome, run, run_all


@pytest.fixture
def broken_tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``broken_tool(message)`` puts a bubblewrap first in the path that does nothing but complain."""
    # Root runs it as nobody, who has to get there; pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:

        def put(message: str) -> None:
            tool = Path(folder, "bwrap")
            tool.write_text(f"#!/bin/sh\necho 'bwrap: {message}' >&2\nexit 1\n", encoding="utf-8")
            tool.chmod(0o755)
            Path(folder).chmod(0o755)
            monkeypatch.setenv("PATH", folder, prepend=os.pathsep)

        yield put


@isolated
class TestHonestPrograms:
    def test_one_that_ends_passes_and_what_it_printed_is_kept(self):
        outcome = run_text("import sys\nprint('out')\nprint('err', file=sys.stderr)")
        assert (outcome.passed, outcome.reason) == (True, "passed")
        assert sorted(outcome.output.split()) == ["err", "out"]

    def test_it_is_a_main_program_with_the_whole_standard_library(self):
        outcome = run_text("""
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
        assert run_text("def f(x: int): pass\nassert f.__annotations__ == {'x': int}").passed

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
            ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ],
    )
    def test_failing_ones_say_why_in_one_line(self, program: str, reason: str):
        outcome = run_text(program)
        assert (outcome.passed, outcome.reason) == (False, reason)

    def test_several_keep_their_order(self):
        programs = [f"import time; time.sleep({0.2 - n / 20}); assert {n} % 2, {n}" for n in range(4)]
        assert [outcome.reason for outcome in run_all(programs)] == [
            *("AssertionError: 0", "passed", "AssertionError: 2", "passed")
        ]
        assert run_all([]) == []

    def test_a_long_program_is_no_obstacle(self):
        assert run_text(f"text = {'x' * 2**20!r}\nassert len(text) == 2**20").passed


@isolated
class TestForgedSuccess:
    @pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "exit_quietly()", "os.kill(os.getpid(), 9)"])
    def test_leaving_before_the_tests_is_no_pass(self, leave: str):
        outcome = run_text(f"""
            import os, sys
            def exit_quietly(): raise SystemExit
            {leave}
            assert False
        """)
        assert not outcome.passed
        assert "exited early" in outcome.reason or outcome.reason == "killed by SIGKILL"

    def test_neither_is_what_it_prints_or_writes_to_descriptors(self):
        outcome = run_text("""
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
        outcome = run_text("import os\nif os.fork(): raise ValueError('the parent failed')")
        assert (outcome.passed, outcome.reason) == (False, "ValueError: the parent failed")

    def test_exit_handlers_and_threads_do_not_turn_a_failure(self):
        outcome = run_text("""
            import atexit, os, threading
            atexit.register(os._exit, 0)
            threading.Thread(target=lambda: threading.Event().wait(60)).start()
            assert False, "failed"
        """)
        assert (outcome.passed, outcome.reason) == (False, "AssertionError: failed")


@isolated
class TestLimits:
    def test_an_endless_loop_ends_by_the_clock(self):
        outcome = run_text("while True: pass", Limits(seconds=0.5))
        assert (outcome.passed, outcome.reason) == (False, "no answer within 0.5 s")

    def test_sleeping_with_everything_closed_ends_too(self):
        outcome = run_text("import os, time\nos.closerange(0, 64)\ntime.sleep(60)", Limits(seconds=0.5))
        assert (outcome.passed, outcome.reason) == (False, "no answer within 0.5 s")

    def test_computing_is_limited_by_itself(self):
        outcome = run_text("while True: pass", Limits(seconds=30, cpu_seconds=1))
        assert outcome.reason == "no answer within 1 s of CPU time"

    def test_a_fork_bomb_gets_no_further_than_its_processes(self):
        outcome = run_text(
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
        before = children()
        outcome = run_text(
            """
            import os
            while True:
                try: os.fork()
                except OSError: pass
            """,
            Limits(seconds=1),
        )
        assert (outcome.passed, outcome.reason) == (False, "no answer within 1 s")
        assert children() <= before

    def test_a_memory_bomb(self):
        outcome = run_text("hoard = [0] * 10**9")
        assert (outcome.passed, outcome.reason) == (False, "more memory than 1024 MiB")

    def test_many_small_memory_bombs(self):
        outcome = run_text(
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
        outcome = run_text(
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
        outcome = run_text("while True: print('x' * 1000)", Limits(file_mib=1, output_kib=3))
        assert (outcome.passed, outcome.reason) == (False, "more output than 1 MiB")
        assert len(outcome.output) == 3 * 1024

    def test_much_output_below_the_limit_is_no_failure(self):
        outcome = run_text("print('x' * 500_000)", Limits(file_mib=1, output_kib=1))
        assert (outcome.passed, len(outcome.output)) == (True, 1024)

    @pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
    def test_the_disk_cannot_be_filled(self, folder: str):
        one = run_text(f"open('{folder}/big', 'wb').write(bytes(3 << 20))", Limits(file_mib=2))
        many = run_text(f"for n in range(9): open(f'{folder}/{{n}}', 'wb').write(bytes(1 << 20))", Limits(file_mib=2))
        assert one.reason.startswith("OSError: [Errno 27]") and many.reason.startswith("OSError: [Errno 28]")

    def test_limits_cannot_be_raised_again(self):
        outcome = run_text("""
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
    def test_nothing_runs_with_a_tool_that_cannot_isolate(self, broken_tool):
        broken_tool("Unknown option --disable-userns")
        with pytest.raises(ValueError, match="Unknown option --disable-userns.*install bubblewrap 0.8 or newer"):
            run("pass")

    def test_elsewhere_than_on_linux_it_says_so(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert "only on Linux" in str(sandbox.unavailable())


@isolated
def test_a_sandbox_that_fails_to_start_is_no_verdict_on_the_program(broken_tool):
    assert run("pass").passed
    broken_tool("no more namespaces")
    with pytest.raises(RuntimeError, match="could not be set up: bwrap: no more namespaces"):
        run("pass")
