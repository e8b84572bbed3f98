"""The texts are true where that can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cogapp import Cog

from mailrelay.cli import main
from mailrelay.settings import load
from mailrelay.variables import Environment, Variable
from tests.support.processes import ROOT

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
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not link.startswith(("http://", "https://")):
            assert (path.parent / link).exists(), link


def test_every_decision_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}[^)]+)\)", (decisions / "README.md").read_text())

    assert sorted(listed) == sorted(path.name for path in decisions.glob("0*.md"))
