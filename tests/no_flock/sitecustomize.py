"""As on a network file system without locks of the kernel. Python imports this where its folder is on PYTHONPATH."""

import errno
import fcntl


def _none(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


fcntl.flock = fcntl.lockf = _none  # type: ignore[assignment]
