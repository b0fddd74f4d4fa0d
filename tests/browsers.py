"""Chromium and Firefox without a window, both driven by WebDriver BiDi: JSON over a web socket.

Firefox speaks it itself, Chromium through its chromedriver. Nothing is downloaded: a browser that is not installed
skips the test.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

START_SECONDS = 60  # a busy machine takes its time
ANSWER_SECONDS = 60
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update", "--disable-sync",
                  "--autoplay-policy=no-user-gesture-required"]
FIREFOX_SETTINGS = {
    "media.autoplay.default": 0, "media.autoplay.blocking_policy": 0, "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False, "browser.aboutwelcome.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False, "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False, "browser.safebrowsing.downloads.remote.enabled": False,
    "extensions.getAddons.cache.enabled": False, "services.settings.server": "data:,"}
FIREFOX_CLOCK = """(window.AudioContext = class extends OfflineAudioContext {
  constructor() { super(1, 441000, 44100); this.began = performance.now(); }
  get currentTime() { return (performance.now() - this.began) / 1000; }
  get state() { return "running"; }
  resume() { return Promise.resolve(); }
  close() { return Promise.resolve(); }
}, 0)"""
KEYS = {"space": " ", "left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "home": "\ue011",
        "escape": "\ue00c"}


class Browser:
    """A browser with one tab. `errors` collects what its console and its scripts complain of."""

    def __init__(self, socket: ClientConnection, name: str) -> None:
        self.socket, self.name, self.n_sent = socket, name, 0
        self.errors: list[str] = []
        self.context = ""

    def begin(self) -> None:
        self.send("session.subscribe", events=["log.entryAdded"])
        self.context = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come in the meantime are collected."""
        self.n_sent += 1
        self.socket.send(json.dumps({"id": self.n_sent, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=ANSWER_SECONDS))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] in ("error", "warn"):
                self.errors.append(str(message["params"].get("text")))
            if message.get("id") == self.n_sent:
                assert message["type"] == "success", f"{method}: {message}"
                return message["result"]

    def open(self, page: Path | str) -> None:
        """Open a file, or an address."""
        url = page if isinstance(page, str) else page.as_uri()
        self.send("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def stand_in_clock(self) -> None:
        """Firefox lets no audio clock run without a sound device: give it one that runs on the computer's."""
        if self.name == "firefox":
            self.js(FIREFOX_CLOCK)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise. It travels as JSON."""
        result = self.send("script.evaluate", expression=f"(async () => JSON.stringify(await ({expression})))()",
                           target={"context": self.context}, awaitPromise=True, userActivation=True)
        assert result["type"] == "success", result.get("exceptionDetails", {}).get("text")
        return json.loads(result["result"].get("value", "null"))

    def wait(self, expression: str, seconds: float = 20) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click the middle of an element, after bringing it to the middle of the screen."""
        x, y = self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
                       f"e.scrollIntoView({{block: 'center'}}); const box = e.getBoundingClientRect(); "
                       f"return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)] }})()")
        self._act({"type": "pointer", "id": "mouse", "actions": [
            {"type": "pointerMove", "x": x, "y": y}, {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0}]})

    def drag(self, start: tuple[float, float], end: tuple[float, float], kind: str = "mouse") -> None:
        """Press the mouse, or a finger ("touch"), at one place of the window, move to another one, and let go."""
        (x, y), (to_x, to_y) = [map(round, place) for place in (start, end)]
        self._act({"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": [
            {"type": "pointerMove", "x": x, "y": y}, {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": (x + to_x) // 2, "y": (y + to_y) // 2, "duration": 50},
            {"type": "pointerMove", "x": to_x, "y": to_y, "duration": 50}, {"type": "pointerUp", "button": 0}]})

    def press(self, *keys: str) -> None:
        """Press and release keys: names of `KEYS`, or characters."""
        values = [KEYS.get(key, key) for key in keys]
        self._act({"type": "key", "id": "keyboard", "actions": [
            {"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")]})

    def _act(self, source: dict[str, Any]) -> None:
        self.send("input.performActions", context=self.context, actions=[source])

    def resize(self, width: int, height: int, ratio: float = 1.0) -> None:
        self.send("browsingContext.setViewport", context=self.context, viewport={"width": width, "height": height},
                  devicePixelRatio=ratio)

    def screenshot(self) -> bytes:
        """A PNG of what is on the screen."""
        return base64.b64decode(self.send("browsingContext.captureScreenshot", context=self.context)["data"])


@contextlib.contextmanager
def browser(name: str, folder: Path, *flags: str) -> Iterator[Browser]:
    """`name` is chromium or firefox; its profile goes into `folder`. Skips the test where it is not installed."""
    with {"chromium": _chromium, "firefox": _firefox}[name](folder, flags) as url, \
            connect(url, max_size=None, open_timeout=START_SECONDS, proxy=None) as socket:
        made = Browser(socket, name)
        if name == "firefox":
            made.send("session.new", capabilities={})
        made.begin()
        yield made


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no {names[0]} on this machine: pages are not tested in it")
    return found


@contextlib.contextmanager
def _process(command: list[str], says: str) -> Iterator[str]:
    """Run a program, wait until it prints `says`, and give what its group matches; end it afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if match := re.search(says, line):
                    break
            else:
                pytest.skip(f"{command[0]} does not start here: {''.join(lines)[-300:]}")
            yield match[1]
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            process.kill()


@contextlib.contextmanager
def _chromium(folder: Path, flags: tuple[str, ...]) -> Iterator[str]:
    program, driver = _program("chromium", "chromium-browser", "google-chrome"), _program("chromedriver")
    options = {"binary": program, "args": [*CHROMIUM_FLAGS, f"--user-data-dir={folder / 'chromium'}", *flags]}
    wanted = {"capabilities": {"alwaysMatch": {"webSocketUrl": True, "goog:chromeOptions": options}}}
    with _process([driver, "--port=0"], r"started successfully on port (\d+)") as port:
        root = f"http://127.0.0.1:{port}/session"
        session = _http("POST", root, wanted)
        try:
            yield session["capabilities"]["webSocketUrl"]
        finally:
            _http("DELETE", f"{root}/{session['sessionId']}")


def _http(method: str, url: str, data: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, method=method, data=None if data is None else json.dumps(data).encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=START_SECONDS) as answer:
        return json.load(answer)["value"]


@contextlib.contextmanager
def _firefox(folder: Path, flags: tuple[str, ...]) -> Iterator[str]:
    profile = folder / "firefox"
    profile.mkdir()
    settings = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in FIREFOX_SETTINGS.items()]
    (profile / "user.js").write_text("".join(settings))
    command = [_program("firefox-esr", "firefox"), "--headless", "--no-remote", "--profile", str(profile),
               "--remote-debugging-port", "0", *flags]
    with _process(command, r"WebDriver BiDi listening on (ws://\S+)") as url:
        yield f"{url}/session"
