"""A hub on the loopback with repositories made in code, and its own client, `hf`, fetching from it.

What the client lays down is what a user has: blobs, links, refs, and the list of all that the repository holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Files = Mapping[str, bytes]


def files_of(folder: Path, **more: bytes) -> dict[str, bytes]:
    """The files of a folder, with a model card as every repository has."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"a model card"} | more


def commit_of(repo: str, revision: str) -> str:
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


class Hub:
    """What `hub` below gives: a place to fetch from, and a cache to fetch to."""

    def __init__(self, endpoint: str, cache: Path, repositories: dict[str, Files]) -> None:
        self.endpoint, self.cache, self.repositories = endpoint, cache, repositories

    def run(self, command: str) -> None:
        """Run a command of the client, as a user would who reads it in a message."""
        word, *rest = shlex.split(command)
        assert word == "hf"
        surroundings = {
            "HF_ENDPOINT": self.endpoint, "HF_HUB_CACHE": str(self.cache), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }  # fmt: skip
        program = [sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()"]
        done = subprocess.run(
            [*program, *rest], env=os.environ | surroundings, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def snapshot(self, repo: str, revision: str = "main") -> Path:
        return self.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit_of(repo, revision)


def command_in(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The command that a message gives: exactly one."""
    (command,) = re.findall(r"`(hf download [^`]*)`", str(error.value))
    return str(command)


@contextmanager
def serving(cache: Path) -> Iterator[Hub]:
    """A hub that ends with the block."""
    repositories: dict[str, Files] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def reply(self, body: bytes = b"{}", code: int = 200, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|revision)/([^/]+))?(/.*)?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if about and about[1] in repositories:
                repo, kind, revision = about[1], about[2], about[3] or "main"
                files = repositories[repo]
                if kind == "tree":
                    listed = [
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]
                    return self.reply(json.dumps(listed).encode(), Content_Type="application/json")
                told = {"id": repo, "modelId": repo, "sha": commit_of(repo, revision), "private": False, "tags": []}
                told |= {"downloads": 0, "siblings": [{"rfilename": name} for name in files]}
                return self.reply(json.dumps(told).encode(), Content_Type="application/json")
            if file and file[3] in repositories.get(file[1], {}):
                data = repositories[file[1]][file[3]]
                commit = file[2] if re.fullmatch("[0-9a-f]{40}", file[2]) else commit_of(file[1], file[2])
                return self.reply(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)
            return self.reply(code=404)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", cache, repositories)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
