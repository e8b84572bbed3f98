"""A store in-process, by moto."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from moto import mock_aws

from mailrelay import assembly, aws, provision
from mailrelay.settings import Settings, load
from mailrelay.store import Store
from tests.support.aws import AWS_CREDENTIALS


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load({**AWS_CREDENTIALS, "MAILRELAY_BUCKET": "mailrelay-content"})


@pytest.fixture(scope="module")
def _cloud(settings: Settings) -> Iterator[None]:
    """What `mailrelay init` creates; once a module, since it takes longer than most tests."""
    with mock_aws():
        list(provision.provision(settings))
        yield


@pytest.fixture
def store(_cloud: None, settings: Settings) -> Iterator[Store]:
    """An empty store."""
    list(
        islice(provision.provision(settings), 2)
    )  # the table and its TTL, which go with each test
    yield assembly.store(settings)
    aws.dynamodb(settings).delete_table(TableName=settings.table)
