"""Logs."""

from __future__ import annotations

import structlog

from mailrelay.observation import Observation

log = structlog.get_logger(__name__)


def observe(what: Observation) -> None:
    log.info(type(what).__name__)
