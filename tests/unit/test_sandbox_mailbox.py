"""The mailbox's limits and its memory."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailrelay.sandbox.mail import Address, Mail
from mailrelay.sandbox.mailbox import Mailbox


def mail(mail_id: str, plain: str = "t", provider: str = "ses") -> Mail:
    return Mail(
        id=mail_id,
        provider=provider,
        sender=Address("a@example.com"),
        to=Address("b@example.org", "B"),
        subject="s",
        plain=plain,
        html=None,
        reply_to=Address("c@example.com"),
        headers={"X-A": "1"},
    )


def ids(mailbox: Mailbox) -> list[str]:
    return [kept.id for kept in mailbox.newest(limit=100)[1]]


def test_a_mail_comes_back_as_it_was() -> None:
    """Stored and found, a mail is equal to itself; an unknown id finds nothing."""
    mailbox, kept = Mailbox(":memory:"), mail("1")
    mailbox.keep(kept)
    assert mailbox.find("1") == kept
    assert mailbox.find("2") is None


def test_the_oldest_go_when_there_are_too_many() -> None:
    """Of more messages than fit, the newest stay."""
    mailbox = Mailbox(":memory:", max_messages=2)
    for number in range(4):
        mailbox.keep(mail(str(number)))
    assert ids(mailbox) == ["3", "2"]


def test_the_oldest_go_when_they_are_too_large() -> None:
    """Of more bytes than fit, the newest stay; one mail that alone is too large stays too."""
    mailbox = Mailbox(":memory:", max_bytes=3000)
    for number in range(4):
        mailbox.keep(mail(str(number), plain="x" * 1000))
    assert ids(mailbox) == ["3", "2"]
    mailbox.keep(mail("large", plain="x" * 5000))
    assert ids(mailbox) == ["large"]
    mailbox.keep(mail("small"))
    assert ids(mailbox) == ["small"]


def test_the_limits_hold_over_a_restart(tmp_path: Path) -> None:
    """What a file holds already counts towards its limit."""
    path = str(tmp_path / "mailbox.sqlite")
    first = Mailbox(path, max_messages=2)
    first.keep(mail("0"))
    first.keep(mail("1"))
    again = Mailbox(path, max_messages=2)
    again.keep(mail("2"))
    assert ids(again) == ["2", "1"]
    assert again.counts() == {"ses": 2}


def test_an_emptied_mailbox_has_all_its_room_again() -> None:
    """Emptying resets what counts towards the limits."""
    mailbox = Mailbox(":memory:", max_messages=2)
    for number in range(2):
        mailbox.keep(mail(str(number)))
    mailbox.empty()
    assert mailbox.counts() == {}
    for number in range(2, 4):
        mailbox.keep(mail(str(number)))
    assert ids(mailbox) == ["3", "2"]


def test_many_threads_lose_nothing() -> None:
    """Messages kept at the same time are all there."""
    mailbox = Mailbox(":memory:")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: mailbox.keep(mail(str(number))), range(200)))
    assert mailbox.newest(limit=1)[0] == 200


def test_a_file_that_is_something_else_is_an_error(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Mailbox(str(path))
    assert path.read_text().startswith("no database")
