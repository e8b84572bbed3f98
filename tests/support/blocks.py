"""The code blocks of the texts, and what a comment right before one says about it.

``<!-- not run: REASON -->``         a test cannot run it
``<!-- printed -->``                 JSON: the shape of what the block before it printed
``<!-- request: POST /path -->``     JSON: a body to send there; its answer counts as printed
``<!-- answer: GET /path -->``       JSON: the shape of the answer there

Readers see none of it, on GitHub or on the site.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from tests.support.processes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

COMMANDS = ("sh", "python")
"""Languages of blocks that are run."""

LANGUAGES = ("", "dockerfile", "nginx", "text", "toml")
"""Others, of which there is nothing to try here."""

_MARK = re.compile(r"<!-- (?P<kind>not run|printed|request|answer)(?:: (?P<about>.+?))? -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, or an indented one, which is `sh`."""

    place: str
    """``docs/api.md:9``"""
    language: str
    code: str
    kind: str = ""
    """What the comment before it says it is, such as `not run`."""
    about: str = ""

    @property
    def runs(self) -> bool:
        return self.language in COMMANDS and self.kind != "not run"


def blocks(page: Path) -> list[Block]:
    """All of a page, in their order."""
    found = []
    mark: Mapping[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else "sh"
            place = f"{page.relative_to(ROOT)}:{(token.map or [0])[0] + 1}"
            found.append(Block(place, language, token.content, **mark))
        if token.type != "html_block":
            mark = {}
        elif match := _MARK.match(token.content):
            mark = {name: text or "" for name, text in match.groupdict().items()}
    return found


def differences(example: Any, answer: Any, where: str = "") -> list[str]:
    """Where two JSON values differ in shape: in the names of fields, and in types.

    What is null, or an empty list, in one of the two may be anything in the other.
    """
    if example is None or answer is None:
        return []
    if type(example) is not type(answer):
        return [f"{where}: {type(example).__name__} and {type(answer).__name__}"]
    if isinstance(example, dict):
        if example.keys() != answer.keys():
            return [f"{where}: {sorted(example.keys() ^ answer.keys())} in one of them only"]
        return [
            said
            for name in example
            for said in differences(example[name], answer[name], f"{where}.{name}")
        ]
    if isinstance(example, list):
        return [
            said
            for one in example
            for other in answer[:1]
            for said in differences(one, other, f"{where}[]")
        ]
    return []


class Shell:
    """A bash that runs one block after the other, as a reader's terminal would."""

    _END = "--- the block is over ---"

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._bash = subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail"],
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: Block, code: str) -> str:
        """What it prints; an `AssertionError` where a command of it fails."""
        if block.language == "python":
            code = f"python - <<'END'\n{code}\nEND"
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.write(f"{{\n{code}\n}} </dev/null\necho '{self._END}'\n")
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            before, end, _ = line.partition(self._END)
            printed += before
            if end:
                return printed
        raise AssertionError(f"{block.place} failed:\n{printed}")

    def close(self) -> None:
        self._bash.kill()
        self._bash.communicate()
