"""Studios for tests: a real server in a thread, and requests to it as its page makes them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from backline.generation.session import LoadedModel
from backline.studio import server
from backline.studio.guard import new_token
from backline.studio.studio import Studio

START_SECONDS = 30
JOB_SECONDS = 60


class Serving:
    """A studio that is served. `client` has its cookie and its origin, as the page has them."""

    def __init__(self, studio: Studio, origin: str, token: str) -> None:
        self.studio = studio
        self.origin = origin
        self.token = token
        self.client = httpx.Client(base_url=origin, headers={"Origin": origin}, trust_env=False, timeout=JOB_SECONDS)

    @property
    def address(self) -> str:
        return f"{self.origin}/?token={self.token}"

    def enter(self) -> None:
        answer = self.client.get("/", params={"token": self.token})
        assert answer.status_code == 303, answer.text

    def post(self, path: str, data: Any = None) -> httpx.Response:
        return self.client.post(path, json={} if data is None else data)

    def ask(self, **form: Any) -> dict[str, Any]:
        """Ask for songs, and wait until they are there; the job's last event."""
        with self.events() as events:
            answer = self.post("/api/ask", form)
            assert answer.status_code == 202, answer.text
            number = answer.json()["number"]
            for event in events:
                if event["type"] == "job" and event["job"]["number"] == number \
                        and event["job"]["state"] in ("done", "failed", "stopped"):
                    return event["job"]
        raise AssertionError("the events ended")

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict[str, Any]]]:
        """What the page is told, from the state on."""
        with self.client.stream("GET", "/api/events") as answer:
            assert answer.status_code == 200
            found = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
            state = next(found)
            assert state["type"] == "state"
            yield self.chained(state, found)

    @staticmethod
    def chained(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield first
        yield from rest

    def state(self) -> dict[str, Any]:
        with self.events() as events:
            return next(events)

    def ideas(self) -> list[dict[str, Any]]:
        return self.state()["ideas"]


@contextlib.contextmanager
def serving(folder: Path, loaded: LoadedModel) -> Iterator[Serving]:
    """Serve a folder at a free port until the block ends."""
    with server.listening_socket("127.0.0.1", 0) as sock:
        studio = Studio(folder, loaded)
        hosts = server.served_hosts("127.0.0.1", sock.getsockname()[1])
        token = new_token()
        made = server.made_server(studio, hosts, token)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + START_SECONDS
        while not made.started and time.monotonic() < until:
            time.sleep(0.01)
        opened = Serving(studio, f"http://{hosts[0]}", token)
        try:
            yield opened
        finally:
            opened.client.close()
            made.should_exit = True
            thread.join(START_SECONDS)
            assert not thread.is_alive()
