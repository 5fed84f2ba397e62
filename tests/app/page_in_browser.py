"""The chat page as a person starts it, and a window of a browser with what a person does there."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.started import ROOT


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def started(*words: str, port: int, log, env: Mapping[str, str]) -> subprocess.Popen:
    """`streamlit run app/chat.py`, in the folder of its log, which has no settings of Streamlit's."""
    program = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "chat.py"), f"--server.port={port}"]
    folder = Path(log.name).parent
    env = {**env, "HOME": str(folder), "STREAMLIT_SERVER_HEADLESS": "true"}
    return subprocess.Popen([*program, "--", *words], cwd=folder, env=env, stdout=log, stderr=log)


def wait_for(log, text: str, process, seconds: float = 120) -> str:
    """What a program printed, once `text` is in it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = Path(log.name).read_text("utf-8", errors="replace")
        if text in said:
            return said
        assert process.poll() is None, said
        time.sleep(0.05)
    raise AssertionError(f"{text!r} was not printed: {said}")


class Visitor:
    """A window of a browser, and what a person does in it."""

    def __init__(self, browser, address: str, **context):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page, self.address, self.wrong = self.context.new_page(), address, []
        self.page.on("console", lambda line: self.wrong.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda one: self._own(one.url))
        self.page.goto(address)
        self.idle()

    def _own(self, url: str) -> None:
        """Nothing is asked of anybody else."""
        if not re.match(rf"({re.escape(self.address)}|ws://{re.escape(self.address[7:])}|data:|blob:)", url):
            self.wrong.append(url)

    def idle(self) -> None:
        """Waits until the page is drawn."""
        self.page.locator("[data-testid=stChatInput]").wait_for(timeout=60_000)
        self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=60_000)

    def attach(self, *files) -> None:
        with self.page.expect_response(re.compile("/upload_file/")):
            self.page.set_input_files("[data-testid=stChatInput] input[type=file]", [str(file) for file in files])
        self.page.locator("[data-testid=stFileChip]").nth(len(files) - 1).wait_for()

    def paste(self, file: Path) -> None:
        field, chips = self.page.locator("[data-testid=stChatInput] textarea"), self._chips()
        field.evaluate(
            "(field, bytes) => { const data = new DataTransfer();"
            " data.items.add(new File([Uint8Array.from(bytes)], 'image.jpg', {type: 'image/jpeg'}));"
            " field.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); }",
            list(file.read_bytes()),
        )
        chips.wait_for()

    def drop(self, file: Path) -> None:
        """Drags a file from outside of the browser."""
        box, chips = self.page.locator("[data-testid=stChatInput]").bounding_box(), self._chips()
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        devtools = self.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})
        chips.wait_for()

    def _chips(self):
        """The file that is attached next."""
        chips = self.page.locator("[data-testid=stFileChip]")
        return chips.nth(chips.count())

    def ask(self, question: str) -> None:
        field = self.page.locator("[data-testid=stChatInput] textarea")
        field.fill(question)
        self.page.locator("[data-testid=stChatInputSubmitButton]:enabled").wait_for()
        field.press("Enter")

    def stop(self) -> None:
        """Ends the answer that is being given."""
        self.page.get_by_test_id("stChatInputStopButton").click()
        self.idle()

    def message(self, number: int):
        """The messages of both, from 0 on."""
        return self.page.locator("[data-testid=stChatMessage]").nth(number)

    def answered(self, number: int) -> None:
        """Waits until an answer has come to its end."""
        self.message(number).get_by_role("button", name="Copy").last.wait_for()
        self.idle()

    def text(self, number: int) -> str:
        return "\n".join(self.message(number).locator("[data-testid=stText]").all_inner_texts())

    def toggle(self, label: str) -> None:
        self.page.get_by_text(label, exact=True).click()
        self.idle()
