"""How providers are found by name and made, and what they ask of the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from mailrelay import providers
from mailrelay.message import Address, Content, Outcome
from mailrelay.providers import Answer, Envelope
from mailrelay.providers.http import Body
from mailrelay.settings import Settings, SettingsError

COMPLETE = {
    "MAILGUN_API_KEY": "mailgun-secret",
    "MAILGUN_DOMAIN": "mg.example.com",
    "SENDGRID_API_KEY": "sendgrid-secret",
}

ENVELOPE = Envelope(
    message_id="<1@example.com>",
    sender=Address("facundo@example.com"),
    to=Address("pedro@example.org"),
    subject="test",
    content=Content(plain="test"),
)

MakeSettings = Callable[..., Settings]


def test_the_chain_is_made_in_its_order(make_settings: MakeSettings) -> None:
    """All three, and no others, by the names in EMAIL_PROVIDERS."""
    made = providers.create(make_settings(**COMPLETE, EMAIL_PROVIDERS="ses,mailgun,sendgrid"))
    assert list(made) == ["ses", "mailgun", "sendgrid"]


def test_what_is_not_in_the_chain_needs_nothing(make_settings: MakeSettings) -> None:
    """A missing key of another provider does not matter."""
    made = providers.create(make_settings(SENDGRID_API_KEY="key", EMAIL_PROVIDERS="sendgrid"))
    assert list(made) == ["sendgrid"]


@pytest.mark.parametrize("variable", COMPLETE)
def test_a_missing_credential_is_named(make_settings: MakeSettings, variable: str) -> None:
    """The error says which variable is missing and why it is needed."""
    settings = make_settings(**{**COMPLETE, variable: ""})
    with pytest.raises(SettingsError, match="is needed: EMAIL_PROVIDERS has") as raised:
        providers.create(settings)
    assert raised.value.variable == variable


@pytest.mark.parametrize("variable", ["MAILGUN_API_KEY", "SENDGRID_API_KEY"])
@pytest.mark.parametrize("value", ["schlüssel-secret", "two secret", "line\r\nX-Own: secret"])
def test_a_key_that_no_header_can_carry_is_named(
    make_settings: MakeSettings, variable: str, value: str
) -> None:
    """It stops the process at the start, not each send; and the error does not show the key."""
    with pytest.raises(SettingsError, match="visible ASCII") as raised:
        providers.create(make_settings(**{**COMPLETE, variable: value}))
    assert raised.value.variable == variable
    assert "secret" not in str(raised.value)


@pytest.fixture
def own_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """boto3 as in a new process, without any files of the developer's."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("own_session")
def test_ses_needs_a_region(make_settings: MakeSettings) -> None:
    """Without one there is no endpoint; the error names where to say it."""
    settings = make_settings(AWS_REGION="", EMAIL_PROVIDERS="ses")
    with pytest.raises(SettingsError, match="or AWS_REGION is needed") as raised:
        providers.create(settings)
    assert raised.value.variable == "SES_REGION"


@pytest.mark.usefixtures("own_session")
def test_half_of_ses_credentials_are_named(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access key without its secret stops the process, naming the half that is missing."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError) as raised:
        providers.create(make_settings(EMAIL_PROVIDERS="ses"))
    assert raised.value.variable == "AWS_SECRET_ACCESS_KEY"


def test_an_unknown_name_is_refused(make_settings: MakeSettings) -> None:
    """The error lists the names that there are."""
    with pytest.raises(
        SettingsError,
        match=r"^EMAIL_PROVIDERS: 'pigeon' is no provider; there are .*mailgun.*",
    ):
        providers.create(make_settings(**COMPLETE, EMAIL_PROVIDERS="mailgun,pigeon"))


def test_names_are_checked_for_the_variable_that_has_them() -> None:
    """Whoever reads names from elsewhere is told so."""
    providers.check_names(["ses", "mailgun"], "OTHER")
    with pytest.raises(SettingsError, match="OTHER"):
        providers.check_names(["ses", "pigeon"], "OTHER")


PIGEON = """
from mailrelay.message import Outcome
from mailrelay.providers import Answer


class Pigeon:
    def __init__(self, settings):
        self._loft = settings.aws_region

    def send(self, envelope):
        return Answer(Outcome.ACCEPTED, "coo", self._loft, f"ring-{envelope.to.email}")

    def check(self):
        return Answer(Outcome.UNAVAILABLE, "rain")
"""


@pytest.fixture
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution of somebody else's, with a provider called `pigeon`."""
    (tmp_path / "pigeon_post.py").write_text(PIGEON)
    info = tmp_path / "pigeon_post-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mailrelay.providers]\npigeon = pigeon_post:Pigeon\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pigeon_post", raising=False)


@pytest.mark.usefixtures("pigeon")
def test_another_packages_provider_is_used(make_settings: MakeSettings) -> None:
    """An entry point is all that it takes: the chain finds it, makes it and sends by it."""
    settings = make_settings(**COMPLETE, EMAIL_PROVIDERS="mailgun,pigeon", AWS_REGION="eu-west-1")
    made = providers.create(settings)
    assert list(made) == ["mailgun", "pigeon"]
    assert made["pigeon"].send(ENVELOPE) == Answer(
        Outcome.ACCEPTED, "coo", "eu-west-1", "ring-pedro@example.org"
    )


@pytest.mark.usefixtures("pigeon")
def test_another_packages_provider_is_listed(make_settings: MakeSettings) -> None:
    """It is among the names that an error offers."""
    with pytest.raises(SettingsError, match=r"there are .*mailgun, pigeon, .*ses"):
        providers.create(make_settings(**COMPLETE, EMAIL_PROVIDERS="stork"))


def test_no_key_is_shown(make_settings: MakeSettings) -> None:
    """Neither the settings nor the providers show a key when they are printed."""
    settings = make_settings(**COMPLETE, MAILRELAY_API_KEYS="demo:client-secret")
    printed = repr(settings) + repr(providers.create(settings))
    assert "mg.example.com" in printed
    assert "secret" not in printed


def test_sendgrids_package_refuses_what_begins_like_a_key(make_settings: MakeSettings) -> None:
    """Its own check comes before any request: the next provider's turn, with a reason."""
    settings = make_settings(**COMPLETE, EMAIL_PROVIDERS="sendgrid")
    text = Content(plain="SG.abc.def is what a key looks like")
    answer = providers.create(settings)["sendgrid"].send(
        Envelope("<1@example.com>", ENVELOPE.sender, ENVELOPE.to, "test", text)
    )
    assert (answer.outcome, answer.code) == (Outcome.UNAVAILABLE, "api_key_included")


def test_a_body_leaves_in_pieces() -> None:
    """All of it, in order; and it has begun once the first piece was asked for."""
    data = bytes(range(256)) * 1000
    body = Body(data, seconds=60)
    assert not body.begun
    pieces = iter(body)
    first = next(pieces)
    assert body.begun
    assert 0 < len(first) < len(data)
    assert first + b"".join(pieces) == data


def test_a_body_has_its_time() -> None:
    """Past its seconds no further piece leaves, however well the line goes."""
    body = Body(b"x" * 1_000_000, seconds=-1)
    with pytest.raises(TimeoutError):
        next(iter(body))
    assert body.begun
