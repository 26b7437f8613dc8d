"""A real Chromium without a window, spoken to over DevTools' own pipe."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from debian_programs import Program, need_program


def find_chromium() -> Program:
    """Return this machine's Chromium, or Debian's."""
    # Beside an installed Chromium, apt would leave out the files that its headless shell shares.
    if installed := shutil.which("chromium"):
        return Program(Path(installed), dict(os.environ))
    return need_program(
        "chromium-headless-shell",
        "chromium-headless-shell",
        "usr/lib/chromium/chromium-headless-shell",
        with_depends=True,
    )


class Browser:
    """One Chromium process and its one page; a context manager."""

    def __init__(self) -> None:
        program = find_chromium()
        self._folder = tempfile.TemporaryDirectory(
            prefix="cacheproxy-chromium-",
            ignore_cleanup_errors=True,  # its children may still write
        )
        commands, self._commands = os.pipe()
        answers, their_answers = os.pipe()
        # DevTools speaks on the descriptors 3 and 4, each message ended by a zero byte.
        wrapped = f'exec "$0" "$@" 3<&{commands} 4>&{their_answers}'
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]
        flags += ["--disable-dev-shm-usage", f"--user-data-dir={self._folder.name}"]
        self._log = (Path(self._folder.name) / "log").open("w+b")
        self._process = subprocess.Popen(
            ["bash", "-c", wrapped, str(program.path), *flags],
            pass_fds=(commands, their_answers),
            stdout=self._log,
            stderr=self._log,
            env=program.environment,
        )
        os.close(commands)
        os.close(their_answers)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._rest = b""
        self._numbers = itertools.count(1)
        self.said: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)
        attached = {"targetId": target["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", attached, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)
        self._process.kill()
        self._process.wait(30)
        self._answers.close()
        self._log.close()
        self._folder.cleanup()

    def call(self, method: str, parameters: Any = None, session: str | None = "") -> Any:
        """Return the result of a DevTools command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.said.append(json.dumps(answer["params"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._answers.read(65_536)
            assert read, "chromium ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size, with or without the wish for dark colours."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", screen)
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [wish]})

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there; what earlier ones said is forgotten."""
        self.call("Page.navigate", {"url": url})
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")
        self.said.clear()

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives on the page."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true on the page."""
        deadline = time.monotonic() + 30
        while not self.value(f"Boolean({expression})"):
            text = self.value("document.body && document.body.innerText")
            assert time.monotonic() < deadline, f"not so: {expression}\n{text}\n{self.said}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a picture."""
        picture = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(picture["data"]))
