"""What of this key's batches the list of `/batches` shows: a page, the newest first."""

from __future__ import annotations

import re

from flask import request

from mailrelay.message import BATCH_ID
from mailrelay.relay import RecentBatches, Relay
from mailrelay.web.console import session

PAGE = 25
"""Batches that are shown at once."""


def asked_for(relay: Relay) -> RecentBatches:
    """The page that the request asks for by `before`, the id of a batch; else the first one."""
    before = request.args.get("before", "")
    cursor = before if re.fullmatch(BATCH_ID, before) else None
    return relay.recent(session.key_name(), cursor, PAGE)
