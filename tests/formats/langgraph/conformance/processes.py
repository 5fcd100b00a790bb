"""The two servers, on free loopback ports. Each process is stopped by its id, and ends when the runner
ends."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
_OF_OTHERS = (
    "GATEWAY_",
    "OPENAI",
    "AZURE",
    "LANGSMITH",
    "LANGCHAIN",
    "LANGGRAPH_API",
    "OTEL_",
    "REDIS",
    "PYTHON",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def _ends_with_us() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Servers:
    """LangGraph's own server, and the gateway of the checkout in the current folder (or a second server of
    LangGraph)."""

    def __init__(self, graphs: list[str], names: list[str], paths: list[str]) -> None:
        self._graphs, self._names, self._paths = graphs, names, paths
        self._folder = tempfile.TemporaryDirectory(prefix="langgraph-cases-")
        self.folder = Path(self._folder.name)
        self.started: list[subprocess.Popen] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 8
        for process in reversed(self.started):
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def start(self, name: str, command: list[str], env: dict[str, str], cwd: str | Path) -> subprocess.Popen:
        with open(self.folder / f"{len(self.started)}-{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_ends_with_us,
            )
        process.log = log.name
        self.started.append(process)
        return process

    def _env(self, **own: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OF_OTHERS) and k not in _PROXIES}
        own |= {
            "PYTHONPATH": os.pathsep.join(self._paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANGGRAPH_CASES_GRAPHS": ",".join(self._graphs),
            "LANGSMITH_TRACING": "false",
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        }
        return kept | own

    def official(self) -> str:
        """Start LangGraph's own server with `langgraph dev`; return its future URL."""
        port = free_port()
        folder = self.folder / f"official-{port}"
        folder.mkdir()
        (folder / "served.py").write_bytes((HERE / "served.py").read_bytes())
        config = {"dependencies": ["."], "graphs": {name: f"./served.py:{name}" for name in self._names}}
        (folder / "langgraph.json").write_text(json.dumps(config))
        langgraph = Path(sys.executable).parent / "langgraph"
        command = [
            str(langgraph),
            "dev",
            "--no-browser",
            "--no-reload",
            "--allow-blocking",
            "--host",
            "127.0.0.1",
        ]
        self.start(
            "official", [*command, "--port", str(port), "--n-jobs-per-worker", "16"], self._env(), folder
        )
        return f"http://127.0.0.1:{port}"

    def gateway(self) -> str:
        """Start a gateway with a separate Redis; return its URL."""
        redis_port, port = free_port(), free_port()
        options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.start("redis", ["redis-server", *options], self._env(), self.folder)
        self._until(
            lambda: socket.create_connection(("127.0.0.1", redis_port), 1).close(), 10, self.started[-1]
        )
        own = {
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "GATEWAY_CHAINS": "conformance.as_chains",
            "GATEWAY_QUEUE": "redis",
            "GATEWAY_WORKER_CONCURRENCY": "32",
            "GATEWAY_MAX_OWNER_STREAMS": "1000",
            "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "100000",
            "OPENAI_API_KEY": "x",
        }
        self.start(
            "gateway",
            [os.path.abspath(".venv/bin/python"), "-m", "gateway", "all"],
            self._env(**own),
            os.getcwd(),
        )
        return f"http://127.0.0.1:{port}"

    def node(
        self, folder: Path, url: str, modules: list[str], names: list[str], secs: float
    ) -> subprocess.Popen:
        """Run the JavaScript cases against one server. Each prints one line of JSON."""
        env = self._env(LANGGRAPH_CASES_SECS=str(int(secs)))
        place = self.folder / f"node-{len(self.started)}"
        place.mkdir()
        (place / "node_modules").symlink_to(folder / "node_modules")
        for file in (*HERE.glob("*.mjs"), *map(Path, modules)):
            (place / file.name).write_bytes(file.read_bytes())
        files = ",".join(str(place / Path(m).name) for m in modules)
        command = ["node", "--no-warnings", str(place / "javascript.mjs"), url, files, *names]
        with open(self.folder / f"node-{len(self.started)}.txt", "wb") as log:
            process = subprocess.Popen(
                command,
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_ends_with_us,
            )
        process.log = log.name
        self.started.append(process)
        return process

    def wait(self, url: str, secs: float = 90) -> None:
        """Wait until the URL answers."""

        def asked() -> None:
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"{url}/ok", timeout=5).close()

        self._until(asked, secs, *self.started)

    def _until(self, tried, secs: float, *processes: subprocess.Popen) -> None:
        end = time.monotonic() + secs
        while time.monotonic() < end:
            try:
                return tried()
            except OSError:
                time.sleep(0.1)
            for process in processes:
                if process.poll() is not None and not process.stdout:
                    raise RuntimeError(f"{Path(process.log).name}: it has ended\n{_end_of(process.log)}")
        raise RuntimeError(f"nothing answers\n{_end_of(processes[-1].log)}")


def _end_of(log: str) -> str:
    with open(log, errors="replace") as said:
        return re.sub(r"\x1b\[[0-9;]*m", "", said.read()[-1500:])
