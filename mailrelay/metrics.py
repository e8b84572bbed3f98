"""Metrics."""

from __future__ import annotations

from mailrelay.observation import Observation


def observe(what: Observation) -> None:
    pass
