"""The texts are true where that can be checked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cogapp import Cog

from mailrelay.cli import main
from mailrelay.settings import load
from mailrelay.variables import Environment, Variable
from tests.support.blocks import COMMANDS, LANGUAGES, PAGES, Block, Shell, blocks, differences
from tests.support.processes import BIN, ROOT

TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_tables_of_the_variables_are_what_the_settings_say() -> None:
    """`make docs` writes them."""
    assert Cog().main(["cog", "--check", str(ROOT / "docs" / "configuration.md")]) == 0


def test_the_documented_defaults_are_the_defaults() -> None:
    """A default that is written out, given as a value, changes nothing."""
    documented = {
        field.names[0]: field.shown_default
        for field in Environment().fields.values()
        if isinstance(field, Variable)
    }
    assert documented["MAILRELAY_RETRY_SCHEDULE"] == "60,300,1800,7200,28800,86400"
    assert load(documented) == load({})


def test_the_variables_of_the_command_line_are_documented() -> None:
    options = [option for command in main.commands.values() for option in command.params]
    read = {option.envvar for option in options if option.envvar}
    text = (ROOT / "docs" / "configuration.md").read_text()

    assert read == {"MAILRELAY_URL", "MAILRELAY_API_KEY"}
    for name in read:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not link.startswith(("http://", "https://")):
            assert (path.parent / link).exists(), link


def test_every_decision_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}[^)]+)\)", (decisions / "README.md").read_text())

    assert sorted(listed) == sorted(path.name for path in decisions.glob("0*.md"))


# The blocks of code, which tests/e2e/test_docs.py tries

NOT_RUN = Counter(
    {
        "a drawing": 2,
        "costs money": 1,
        "kills a part": 1,
        "starts the relay": 2,
        "stays until it is stopped": 2,
        "takes minutes": 2,
        "tests/unit/test_client.py runs all of them": 3,
    }
)
"""How many blocks a test cannot run, by reason. One more wants a good one."""

ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=lambda block: block.place)
def test_every_block_can_be_tried(block: Block) -> None:
    """Commands are run and JSON is held against an answer, or a comment says why not."""
    assert block.language in (*COMMANDS, *LANGUAGES, "json")
    assert bool(block.about) == (block.kind in ("not run", "request", "answer"))
    if block.language == "json":
        assert block.kind


def test_few_blocks_are_not_run() -> None:
    assert Counter(block.about for block in ALL_BLOCKS if block.kind == "not run") <= NOT_RUN


@pytest.mark.parametrize(
    ("example", "answer", "differ"),
    [
        ({"a": 1, "b": None}, {"a": 2, "b": "x"}, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": {"b": "x"}}, {"a": {"c": "x"}}, True),
        ({"a": 1}, {"a": "1"}, True),
        ({"a": True}, {"a": 1}, True),
        ([{"a": 1}, {"a": 2}], [{"a": 3}], False),
        ([{"a": 1}], [{"b": 1}], True),
        ([], [{"b": 1}], False),
    ],
)
def test_shapes(example: Any, answer: Any, differ: bool) -> None:
    assert bool(differences(example, answer)) is differ


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    """Blocks of a page share a terminal, and the first command that fails ends it."""
    shell = Shell(os.environ, tmp_path)
    shell.run(Block("1", "sh", ""), "word=there")
    assert shell.run(Block("2", "sh", ""), "echo $word") == "there\n"
    with pytest.raises(AssertionError, match=r"3 failed:\nhere"):
        shell.run(Block("3", "sh", ""), "echo here; false | cat; echo there")
    shell.close()


# The site, as `make docs` builds it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a link or an anchor that leads nowhere fails."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    done = subprocess.run(
        [BIN / "zensical", "build", "--strict"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "docs", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return folder / "build" / "site"


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    """No font, script, style or image of another server."""
    pages = list(site.rglob("*.html"))

    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert (
            re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//', text)
            == []
        )


def test_the_site_has_no_link_to_what_it_does_not_have(site: Path) -> None:
    """Links to files of the repository are names there."""
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"#?]+)', page.read_text()):
            if "://" not in link and not link.startswith("mailto:"):
                start = site if link.startswith("/") else page.parent
                assert (start / link.lstrip("/")).exists(), (page.name, link)


def test_the_site_can_be_searched(site: Path) -> None:
    assert "Idempotency-Replayed" in (site / "search.json").read_text()


def test_the_navigation_has_every_page() -> None:
    """Decisions are listed on a page of their own."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = [page for section in nav for pages in section.values() for page in pages]

    there = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert sorted(listed) == sorted([*there, "decisions/README.md"])
