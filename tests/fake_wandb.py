"""A W&B server on loopback: as much of one as runs, agents and pages need."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class FakeServer(ThreadingHTTPServer):
    """Takes runs without artifacts, sweeps, agents and pages; refuses every key if it ``refuses``.

    ``received`` holds the lines of each file of runs, ``runs`` what was said of each run when it was opened, ``views``
    the pages, ``sweeps`` the configurations of sweeps. An agent gets the ``commands``, one a heartbeat, then the end.
    ``history`` holds the rows of each run by its id; runs of ``deleted`` ids are refused.
    """

    def __init__(self, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = refuses
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.received: dict[str, list[Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.deleted: set[str] = set()
        self.exit_code: int | None = None
        self.requests: list[str] = []
        self.runs: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.sweeps: list[str] = []
        self.commands: list[dict[str, Any]] = []

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "graphql" not in path:
            for name, content in (body.get("files") or {}).items():
                # The console is plain text.
                lines = [json.loads(line) if ".json" in name else line for line in content["content"]]
                self.received.setdefault(name, []).extend(lines)
                if name == "wandb-history.jsonl":
                    rows = self.history.setdefault(path.split("/")[-2], [])
                    rows[content["offset"] :] = lines
            self.exit_code = body.get("exitcode", self.exit_code)
            return {}
        query, values = body["query"], body.get("variables") or {}
        self.requests.append(re.sub(r"\s+", " ", query)[:200])
        for word, field in _FIELDS.items():
            if re.search(rf"\b{word}\b", query):
                return {"data": getattr(self, field)(values)}
        return {"errors": [{"message": "unsupported"}]}

    def _viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "0", "entity": "team", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer | {"defaultEntity": {"name": "team"}}}

    def _bucket(self, values: dict[str, Any]) -> dict[str, Any]:
        if values["name"] in self.deleted:
            raise Deleted(values["name"])
        self.runs.append(values)
        project = {"id": "1", "name": values["project"], "entity": {"id": "2", "name": "team"}}
        bucket = {"id": "3", "name": values["name"], "displayName": "", "config": "{}", "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _resumed(self, values: dict[str, Any]) -> dict[str, Any]:
        rows = self.history.get(values["name"])
        project = {"id": "1", "name": values["project"], "entity": {"id": "2", "name": "team"}}
        if rows is None:
            return {"model": project | {"bucket": None}}
        counts = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "eventsTail": "[]"}
        about = {"id": "3", "name": values["name"], "displayName": "", "tags": [], "notes": ""}
        kept = {"summaryMetrics": "{}", "config": "{}", "wandbConfig": json.dumps({"t": {"value": {}}})}
        return {"model": project | {"bucket": about | counts | tails | kept}}

    def _sweep(self, values: dict[str, Any]) -> dict[str, Any]:
        self.sweeps.append(values["config"])
        project = {"id": "1", "name": values["projectName"], "entity": {"id": "2", "name": "team"}}
        return {"upsertSweep": {"sweep": {"name": "sweep123", "project": project}, "configValidationWarnings": []}}

    def _sweep_of_agent(self, values: dict[str, Any]) -> dict[str, Any]:
        sweep = {"id": "4", "name": values["sweep"], "state": "RUNNING", "config": self.sweeps[-1]}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}}}}

    def _agent(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "5"}}}

    def _heartbeat(self, values: dict[str, Any]) -> dict[str, Any]:
        running = json.loads(values["runState"])
        commands = [] if running else [self.commands.pop(0) if self.commands else {"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "5"}, "commands": json.dumps(commands)}}

    def _view(self, values: dict[str, Any]) -> dict[str, Any]:
        self.views.append(values)
        view = {key: values.get(key) for key in ("name", "displayName", "description", "spec", "type")}
        project = {"id": "1", "name": values["projectName"], "entityName": "team"}
        return {"upsertView": {"view": view | {"id": values.get("id") or f"v{len(self.views)}", "project": project}}}

    def _projects(self, values: dict[str, Any]) -> dict[str, Any]:
        facts = {"id": "1", "entityName": "team", "createdAt": "", "isBenchmark": False, "user": None}
        edges = [{"node": facts | {"name": name}, "cursor": "c"} for name in ("mine", "pruning-representations")]
        return {"models": {"edges": edges, "pageInfo": {"endCursor": "c", "hasNextPage": False}}}

    def _internal_id(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"internalId": "UHJvamVjdDoxOg=="}}


_FIELDS = {
    "RunResumeStatus": "_resumed",
    "upsertBucket": "_bucket",
    "upsertSweep": "_sweep",
    "createAgent": "_agent",
    "agentHeartbeat": "_heartbeat",
    "upsertView": "_view",
    "SweepWithRuns": "_sweep_of_agent",
    "internalId": "_internal_id",
    "models": "_projects",
    "viewer": "_viewer",
}


class Deleted(Exception):
    """The server has deleted the run of an id."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status = 401 if self.server.refuses else 200
        try:
            answer = {} if self.server.refuses else self.server.answer(self.path, json.loads(body))
        except Deleted as run:
            message = f"run {run} was previously created and deleted; try a new run name"
            status, answer = 409, {"errors": [{"message": message}]}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the console quiet."""


def forget_account(patch: pytest.MonkeyPatch, home: Path) -> None:
    """No key, settings or proxy of the machine takes part."""
    for name in os.environ:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.delenv("NETRC", raising=False)


def environment(**more: str) -> dict[str, str]:
    """For another process: this one's, without its writer of runs."""
    return {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"} | more


def use(patch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """A key for the server is at hand."""
    patch.setenv("WANDB_BASE_URL", server.url)
    patch.setenv("WANDB_API_KEY", "k" * 40)


@contextmanager
def serving(refuses: bool = False) -> Iterator[FakeServer]:
    """A server that answers until the block ends."""
    with FakeServer(refuses) as fake:
        threading.Thread(target=fake.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield fake
        finally:
            fake.shutdown()
