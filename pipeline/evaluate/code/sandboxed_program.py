"""The runner inside the sandbox: lowers the limits, executes one program and reports how it ended.

The sandbox passes this file's text to a bare interpreter, so it imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import types
from typing import Any

STARTED = "started"


def main() -> None:
    """Read a request (program, token, limits) from standard input; report to the descriptor named in argv.

    The token is written if the program ran to its end, and only then; otherwise the reason why it did not.
    """
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    token: str = request.pop("token")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _lower_limits(request["limits"])
    os.write(report, f"{STARTED}\n".encode())
    process = os.getpid()
    reason = execute(request["program"])
    _flush()
    # A child forked by the program gets here as well, but must not report for it.
    if os.getpid() == process:
        os.write(report, (reason or token).encode(errors="replace"))
    # Exit handlers and threads of the program must not run after its end.
    os._exit(0)


def execute(program: str) -> str | None:
    """Run ``program`` as ``__main__``; return None if it ran to its end, else one line that says why not."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"], runner = module, sys.modules["__main__"]
    sys.argv = [""]
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
    except MemoryError:
        return "MemoryError"
    except SystemExit as left:
        return f"exited early with status {left.code!r:.20}"
    except BaseException as error:
        return _line(error)
    finally:
        sys.modules["__main__"] = runner
    return None


def _line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {' '.join(str(error).split())}"[:200].removesuffix(": ")
    except BaseException:
        return name


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        # The program closed or replaced them; its output does not affect how it ended.
        return


def _lower_limits(limits: dict[str, int]) -> None:
    """Set hard limits as well, so that the program cannot raise them again."""
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard - (name == "CPU"))
        # One second between SIGXCPU, which gives the reason, and SIGKILL, which cannot be caught.
        resource.setrlimit(number, (value, value + (name == "CPU")))


if __name__ == "__main__":
    main()
