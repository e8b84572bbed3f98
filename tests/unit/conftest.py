"""A store in-process, by moto."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from mailrelay import assembly, provision
from mailrelay.settings import Settings, load
from mailrelay.store import Store
from tests.support.aws import AWS_CREDENTIALS


@pytest.fixture
def settings() -> Settings:
    return load({**AWS_CREDENTIALS, "MAILRELAY_BUCKET": "mailrelay-content"})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with mock_aws():
        list(provision.provision(settings))
        yield assembly.store(settings)
