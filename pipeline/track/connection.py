"""Decides whether a tracked run goes to a W&B server or stays on disk, without importing wandb."""

from __future__ import annotations

import configparser
import netrc
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pipeline.common.packages import absent

# The optional dependencies of tracking in pyproject.toml.
EXTRA = "track"
MODES = ("auto", "online", "offline", "disabled")
DEFAULT_URL = "https://api.wandb.ai"
CONNECT_SECONDS = 2.0
_OLD_NAMES = {"run": "online", "dryrun": "offline"}  # still accepted by wandb itself in WANDB_MODE


@dataclass(frozen=True)
class Connection:
    """Mode of a run: `mode` is online, offline or disabled; `reason` says why it cannot be online."""

    mode: str
    reason: str | None = None


def resolve_mode(requested: str) -> Connection:
    """Turn a requested mode (one of `MODES`) into the one to use.

    `auto` follows the environment variable WANDB_MODE if it is set; otherwise, and for `online`, the run goes
    online if an API key is found and the server answers, and stays offline if not. Without the package `wandb`,
    every mode is `disabled`. Raises ValueError for an unknown mode, naming the choices.
    """
    mode = _checked(requested, "wandb mode")
    if mode != "disabled" and (missing := absent("wandb", EXTRA)):
        return Connection("disabled", missing)
    if mode == "auto" and os.environ.get("WANDB_MODE"):
        value = os.environ["WANDB_MODE"]
        mode = _checked(_OLD_NAMES.get(value, value), "WANDB_MODE")
    if mode in ("offline", "disabled"):
        return Connection(mode)
    url = base_url()
    if api_key(url) is None:
        return Connection("offline", "no API key: run `wandb login` or set WANDB_API_KEY")
    if not _answers(url):
        return Connection("offline", f"{url} does not respond")
    return Connection("online")


def prepare_import() -> None:
    """Set the environment that wandb reads when it is imported; call this before.

    Error reports need the network even offline, and login prints a line.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")


def base_url() -> str:
    """Return the server's address: WANDB_BASE_URL, else the one that `wandb login --host` stored, else W&B's own."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(Path(folder).expanduser() / "settings")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return DEFAULT_URL
    return settings.get("default", "base_url", fallback=DEFAULT_URL).rstrip("/")


def api_key(url: str) -> str | None:
    """Return the key for the server at `url`: WANDB_API_KEY, else the netrc file's (NETRC, ~/.netrc or ~/_netrc)."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    candidates = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    paths = [Path(name).expanduser() for name in candidates]
    path = next((path for path in paths if path.is_file()), None)
    try:
        entry = netrc.netrc(path).authenticators(urlsplit(url).netloc) if path else None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return None
    return (entry[2] or None) if entry else None


def _checked(mode: str, where: str) -> str:
    if mode not in MODES:
        raise ValueError(f"unknown {where} {mode!r}: choose from {', '.join(MODES)}")
    return mode


def _answers(url: str) -> bool:
    """Return whether the server, or the proxy before it, accepts a TCP connection within `CONNECT_SECONDS`."""
    target = urlsplit(url)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(target.netloc):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = target.port or (80 if target.scheme == "http" else 443)
        with socket.create_connection((target.hostname or "", port), timeout=CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False
