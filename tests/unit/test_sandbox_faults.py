"""Which fault meets a mail, and how faults are written."""

import pytest

from mailrelay.sandbox.faults import (
    HEALTHY,
    Fault,
    FaultError,
    Kind,
    applying,
    parse_fault,
    recipient_faults,
)


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(kind) for kind in Kind),
        Fault(Kind.STATUS, status=429, wait=20),
        Fault(Kind.SLOW, seconds=0),
    ],
)
def test_a_fault_survives_json(fault: Fault) -> None:
    """What `as_json` shows, `parse_fault` reads."""
    assert parse_fault(fault.as_json()) == fault


def test_slow_is_two_seconds_unless_told() -> None:
    """The kind `slow` alone is enough."""
    assert parse_fault({"kind": "slow"}) == Fault(Kind.SLOW, seconds=2.0)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (None, {""}),
        (["status"], {""}),
        ({"kind": None}, {"kind"}),
        ({"kind": ["status"]}, {"kind"}),
        ({"kind": "status", "status": "503"}, {"status"}),
        ({"kind": "status", "status": True}, {"status"}),
        ({"kind": "status", "status": 503.0}, {"status"}),
        ({"kind": "status", "status": 399}, {"status"}),
        ({"kind": "status", "status": 600}, {"status"}),
        ({"kind": "slow", "seconds": "2"}, {"seconds"}),
        ({"kind": "status", "status": 429, "wait": 1.5}, {"wait"}),
        ({"kind": "status", "status": 429, "wait": 86_401}, {"wait"}),
        ({"kind": "slow", "seconds": 60.1}, {"seconds"}),
        ({"kind": "slow", "seconds": float("nan")}, {"seconds"}),
        ({"kind": "sick", "status": 503, "x": 1}, {"kind", "x"}),
    ],
)
def test_every_bad_field_is_named(value: object, fields: set[str]) -> None:
    """The error maps each bad field to what it takes."""
    with pytest.raises(FaultError) as caught:
        parse_fault(value)
    assert set(caught.value.errors) == fields


@pytest.mark.parametrize(
    ("email", "faults"),
    [
        ("pedro@example.org", {}),
        ("mailgun-503@example.org", {"mailgun": Fault(Kind.STATUS, status=503)}),
        ("pedro+SES-Hang@example.org", {"ses": Fault(Kind.HANG)}),
        ("ses-close@example.org", {"ses": Fault(Kind.CLOSE)}),
        (
            "mailgun-lost+ses-refuse+sendgrid-slow@example.org",
            {
                "mailgun": Fault(Kind.LOST),
                "ses": Fault(Kind.REFUSE),
                "sendgrid": Fault(Kind.SLOW, seconds=2.0),
            },
        ),
        ("ses-500+ses-429@example.org", {"ses": Fault(Kind.STATUS, status=500)}),
        ("ses-200+ses-999+ses-50+ses-+ses-healthy+postmark-500@example.org", {}),
        ("ses-٥٠٠@example.org", {}),
        ("pedro@ses-500", {}),
        ("+@example.org", {}),
        ("", {}),
    ],
)
def test_an_addresss_words_are_read(email: str, faults: dict[str, Fault]) -> None:
    """Known words are faults, the first for a provider counts, all others say nothing."""
    assert recipient_faults(email) == faults


def test_the_recipient_wins_over_the_switch() -> None:
    """A recipient's fault applies at its own provider; elsewhere the switch does."""
    hang = Fault(Kind.HANG)
    assert applying("ses", "ses-slow@example.org", hang) == Fault(Kind.SLOW)
    assert applying("mailgun", "ses-slow@example.org", hang) == hang
    assert applying("mailgun", "pedro@example.org", HEALTHY) == HEALTHY
