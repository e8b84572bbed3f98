"""What the texts say to type works, and the answers that they show are those that come."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailrelay.message import BATCH_ID
from tests.e2e.conftest import MakeStack
from tests.support.blocks import PAGES, Block, Shell, blocks, differences
from tests.support.processes import BIN
from tests.support.sandbox import Sandbox
from tests.support.stack import KEY, Stack

TRIED = ("printed", "request", "answer")
"""Kinds of blocks that are held against an answer."""


@pytest.fixture(scope="module")
def stack(make_shared_stack: MakeStack) -> Stack:
    """What sends, shared by all pages; nothing here waits for a sweep."""
    stack = make_shared_stack()
    with ThreadPoolExecutor() as pool:
        list(pool.map(stack.start, ["web", "worker"]))
    return stack


@pytest.fixture
def checkout(stack: Stack, tmp_path: Path) -> Path:
    """A folder as `make run` leaves it: what a reader's commands find there."""
    data = tmp_path / ".data"
    data.mkdir()
    (data / "demo-key").write_text(KEY)
    exports = [
        f"export {name}={shlex.quote(value)}\n"
        for name, value in stack.environ.items()
        if os.environ.get(name) != value
    ]
    (data / "environment").write_text("".join(exports))
    (tmp_path / ".venv").symlink_to(BIN.parent)
    return tmp_path


class Reader:
    """Does what a page says, in its order."""

    def __init__(self, stack: Stack, sandbox: Sandbox, shell: Shell) -> None:
        self._stack = stack
        self._shell = shell
        self._addresses = {
            "8000": stack.url,
            "8001": f"http://127.0.0.1:{stack.environ['MAILRELAY_METRICS_PORT']}",
            "8025": sandbox.url,
        }
        self._printed = ""
        self._batch = "<id>"

    def do(self, block: Block) -> None:
        if block.runs:
            self._saw(self._shell.run(block, self._here(block.code)))
        elif block.kind == "request":
            method, path = block.about.split()
            response = self._stack.call(method, path, json=json.loads(block.code))
            self._saw(response.data.decode())
        elif block.kind == "answer":
            _, path = self._here(block.about).split()
            if path.startswith("/emails/"):
                self._stack.wait(path.removeprefix("/emails/"))
            self._compare(block, self._stack.call("GET", path).data.decode())
        elif block.kind == "printed":
            self._compare(block, self._printed)

    def _saw(self, printed: str) -> None:
        self._printed = printed
        if ids := re.findall(BATCH_ID, printed):
            self._batch = ids[-1]

    def _here(self, code: str) -> str:
        """With this relay's ports, and with the id that was printed last for `<id>`."""
        code = re.sub(
            r"(?:http://)?(?:localhost|127\.0\.0\.1):(800[01]|8025)\b",
            lambda match: self._addresses[match[1]],
            code,
        )
        return code.replace("<id>", self._batch)

    def _compare(self, block: Block, answer: str) -> None:
        assert differences(json.loads(block.code), json.loads(answer)) == [], block.place


@pytest.fixture
def reader(stack: Stack, sandbox: Sandbox, checkout: Path) -> Iterator[Reader]:
    environ = {
        **stack.environ,
        "PATH": f"{BIN}:{stack.environ['PATH']}",
        "MAILRELAY_API_KEY": KEY,
        "MAILRELAY_URL": stack.url,
    }
    shell = Shell(environ, checkout)
    yield Reader(stack, sandbox, shell)
    shell.close()
    sandbox.heal()


TRIED_PAGES = [
    page for page in PAGES if any(each.runs or each.kind in TRIED for each in blocks(page))
]


@pytest.mark.parametrize("page", TRIED_PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    """Every command succeeds, and every answer has the shape that is shown."""
    for block in blocks(page):
        reader.do(block)
