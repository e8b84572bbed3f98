"""The texts are true where that can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailrelay.settings import load
from tests.support.processes import ROOT

TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _variables() -> dict[str, str]:
    """Each variable that docs/configuration.md has a row for, with its default there."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*) \|", text, re.MULTILINE)
    return {name.strip("`"): default.strip().strip("`") for name, default in rows}


def test_every_variable_of_the_settings_is_documented() -> None:
    source = (ROOT / "mailrelay" / "settings.py").read_text()
    read = set(re.findall(r'"((?:[A-Z]+_)*[A-Z]+)"', source)) - {"KEY", "HEX"}

    assert read <= set(_variables())
    assert len(read) > 20


def test_the_documented_defaults_are_the_defaults() -> None:
    """A default that is written out, given as a value, changes nothing."""
    documented = {
        name: default
        for name, default in _variables().items()
        if default and " " not in default and "$" not in default and default != "none"
    }
    assert documented["MAILRELAY_LEASE"] == "30"
    assert load(documented) == load({})


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not link.startswith(("http://", "https://")):
            assert (path.parent / link).exists(), link


def test_every_decision_is_listed() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}[^)]+)\)", (decisions / "README.md").read_text())

    assert sorted(listed) == sorted(path.name for path in decisions.glob("0*.md"))
