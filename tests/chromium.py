"""A headless Chromium for tests, driven through its debugging pipe: nothing but the browser is needed."""

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and writes answers to 4.
START = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execvp(sys.argv[1], sys.argv[1:])"


def find() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page. `log` holds errors and warnings of its console, `requests` the addresses that were
    asked for."""

    def __init__(self, path: str, profile: Path) -> None:
        """`profile` is a new, empty folder."""
        # Numbers above 4, or moving one would close the other.
        ends = [os.dup(fd) if fd < 5 else fd for pair in (os.pipe(), os.pipe()) for fd in pair]
        ends = [os.dup(fd) if fd < 5 else fd for fd in ends]
        read, self.write, self.read, write = ends
        command = [sys.executable, "-c", START.format(read, write), path, *FLAGS, f"--user-data-dir={profile}"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, pass_fds=(read, write), stdout=quiet, stderr=quiet, stdin=quiet)
        os.close(read)
        os.close(write)
        self.numbers = itertools.count(1)
        self.arrived: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.log: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self.session: str | None = None
        threading.Thread(target=self.listen, daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def listen(self) -> None:
        rest = b""
        while data := os.read(self.read, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in messages:
                self.arrived.put(json.loads(message))
        self.arrived.put(None)

    def next(self, timeout: float = 30) -> dict[str, Any]:
        message = self.arrived.get(timeout=timeout)
        assert message is not None, "the browser is gone"
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.log.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.log.append(f"{about['type']}: {about['args']}")
        elif method == "Log.entryAdded":
            self.log.append(f"{about['entry']['level']}: {about['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session and not method.startswith("Target."):
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        while True:
            answer = self.next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, width: int, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Loads a page in a window of this size, light or dark, with or without scripts; returns when it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.log, self.requests, self.loaded = [], [], False
        self.call("Page.navigate", url=url)
        while not self.loaded:
            self.next()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self.write)
