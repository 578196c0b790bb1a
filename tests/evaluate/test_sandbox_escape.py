"""What hostile programs in the sandbox can neither see, change, reach nor leave behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from places import ROOT
from sandboxed import children, gone, isolated, run_text, wait_until

from pipeline.evaluate.code.sandbox import Limits


@isolated
class TestWhatIsOutOfReach:
    def test_files_outside_survive_an_attempt_to_delete_everything(self, tmp_path: Path):
        canary = tmp_path / "canary"
        canary.write_text("alive")
        outcome = run_text(
            f"""
            import os, shutil
            assert not os.path.exists({str(canary)!r}) and not os.path.exists({str(ROOT / "README.md")!r})
            library = os.path.dirname(os.__file__)
            for folder in ({str(tmp_path)!r}, {str(ROOT)!r}, library + "/json", "/usr/share/doc", "/tmp", "/dev"):
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
        assert canary.read_text() == "alive" and Path(os.__file__).is_file() and (ROOT / "README.md").is_file()

    def test_only_the_system_and_the_interpreter_are_visible(self):
        outcome = run_text("""
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
        outcome = run_text(f"""
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
        outcome = run_text("""
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
        outcome = run_text(f"""
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
        outcome = run_text("""
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
        outcome = run_text("""
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
        outcome = run_text(f"""
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
            outcome = run_text(f"""
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
        outcome = run_text(f"""
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
        assert gone(marker)

    def test_nothing_is_left_of_one_that_was_stopped(self):
        marker, before = uuid.uuid4().hex, children()
        outcome = run_text(
            f"""
            import subprocess, sys
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
            """,
            Limits(seconds=0.5),
        )
        assert outcome.reason == "no answer within 0.5 s"
        assert gone(marker) and children() <= before

    def test_it_ends_with_the_process_that_started_it(self):
        marker = uuid.uuid4().hex
        sleep = f"[sys.executable, '-c', 'import time; time.sleep(300)', {marker!r}]"
        program = f"import subprocess, sys; subprocess.run({sleep})"
        starter = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from pipeline.evaluate.code.sandbox import Limits, run; run({program!r}, Limits(seconds=300))",
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        try:
            wait_until(lambda: not gone(marker))
        finally:
            starter.kill()
            starter.wait()
        wait_until(lambda: gone(marker))

    def test_no_descriptors_leak_into_it_or_stay_behind(self):
        run_text("pass")
        before = len(os.listdir("/proc/self/fd"))
        outcome = run_text("""
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
