"""The judge of the chaos suite finds each kind of failure that is put into the books."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from mailrelay.message import Outcome, Status
from tests.chaos.books import Books, Request, StoredEmail, times_enqueued
from tests.chaos.judge import Breach, Terms, judge

BATCH = "01M86CPHWVMXAYHCK7BA5TAEQD"
ANYTHING = Terms(unanswered=True)


def stored(
    index: int, status: Status = Status.SENT, *attempts: tuple[str, Outcome]
) -> StoredEmail:
    return StoredEmail(
        id=f"{BATCH}-{index}",
        address=address(index),
        status=status,
        attempts=attempts or (("mailgun", Outcome.ACCEPTED),),
    )


def address(index: int) -> str:
    return f"reader{index}@example.org"


def asked(*indexes: int, status: int | None = 202) -> Request:
    ids = {address(index): f"{BATCH}-{index}" for index in indexes} if status == 202 else {}
    return Request(tuple(map(address, indexes)), status, ids)


GOOD = Books(
    requests=(asked(0, 1), asked(2, status=503), asked(3, status=None)),
    emails=(stored(0), stored(1)),
    mailbox=((address(0), "mailgun"), (address(1), "mailgun")),
)


def breaches(books: Books, terms: Terms = ANYTHING) -> set[Breach]:
    return {finding.breach for finding in judge(books, terms).findings}


def test_books_that_agree_have_no_findings() -> None:
    verdict = judge(GOOD, Terms())
    assert (verdict.accepted, verdict.stated, verdict.findings) == (2, 0, ())


def test_an_unanswered_batch_may_have_been_accepted_whole() -> None:
    books = replace(
        GOOD, emails=(*GOOD.emails, stored(3)), mailbox=(*GOOD.mailbox, (address(3), "mailgun"))
    )
    assert breaches(books) == set()


@pytest.mark.parametrize(
    "emails",
    [
        pytest.param((stored(0),), id="not stored"),
        pytest.param((stored(0), replace(stored(1), id=f"{BATCH}-9")), id="another id"),
        pytest.param((stored(0), replace(stored(1), status=Status.QUEUED)), id="queued"),
        pytest.param((stored(0), replace(stored(1), status=Status.SENDING)), id="sending"),
        pytest.param((stored(0), replace(stored(1), status=Status.DEFERRED)), id="deferred"),
        pytest.param((stored(0), replace(stored(1), status=Status.UNKNOWN)), id="unknown"),
        pytest.param((stored(0), replace(stored(1), status=Status.FAILED)), id="failed"),
        pytest.param((stored(0), replace(stored(1), attempts=())), id="sent by nobody"),
    ],
)
def test_an_accepted_email_that_is_not_sent_is_lost(emails: tuple[StoredEmail, ...]) -> None:
    assert Breach.LOST in breaches(replace(GOOD, emails=emails))


def test_an_email_that_no_mailbox_holds_is_lost() -> None:
    assert breaches(replace(GOOD, mailbox=GOOD.mailbox[:1])) == {Breach.LOST}


def test_a_second_copy_that_no_attempt_explains_is_a_breach() -> None:
    books = replace(GOOD, mailbox=(*GOOD.mailbox, (address(1), "ses")))
    assert breaches(books) == {Breach.DOUBLED}


def test_a_second_copy_of_one_provider_is_a_breach_though_another_did_not_answer() -> None:
    emails = (
        stored(0),
        stored(1, Status.SENT, ("ses", Outcome.UNKNOWN), ("mailgun", Outcome.ACCEPTED)),
    )
    books = replace(GOOD, emails=emails, mailbox=(*GOOD.mailbox, (address(1), "mailgun")))
    assert breaches(books) == {Breach.DOUBLED}


UNANSWERED = replace(
    GOOD,
    emails=(
        stored(0),
        stored(1, Status.SENT, ("ses", Outcome.UNKNOWN), ("mailgun", Outcome.ACCEPTED)),
    ),
    mailbox=(*GOOD.mailbox, (address(1), "ses")),
)


def test_a_copy_of_an_attempt_that_went_unanswered_is_the_stated_case() -> None:
    verdict = judge(UNANSWERED, ANYTHING)
    assert (verdict.stated, verdict.findings) == (1, ())


def test_an_unanswered_attempt_that_no_fault_explains_is_a_breach() -> None:
    assert breaches(UNANSWERED, Terms()) == {Breach.UNEXPLAINED}


def test_two_copies_are_a_breach_where_duplicates_are_avoided() -> None:
    assert breaches(UNANSWERED, Terms(avoid=True, unanswered=True)) == {Breach.DOUBLED}


@pytest.mark.parametrize("copies", [0, 1])
def test_an_email_may_end_unknown_where_duplicates_are_avoided(copies: int) -> None:
    emails = (stored(0), stored(1, Status.UNKNOWN, ("mailgun", Outcome.UNKNOWN)))
    books = replace(GOOD, emails=emails, mailbox=GOOD.mailbox[: 1 + copies])
    assert breaches(books, Terms(avoid=True, unanswered=True)) == set()


def test_one_that_failed_and_was_delivered_is_a_breach() -> None:
    refused = "mailgun-refuse@example.org"
    email = replace(stored(0, Status.FAILED, ("mailgun", Outcome.REJECTED)), address=refused)
    request = Request((refused,), 202, {refused: email.id})
    books = Books((request,), (email,), ())
    assert breaches(books) == set()
    assert breaches(replace(books, mailbox=((refused, "mailgun"),))) == {Breach.DOUBLED}


def test_a_refused_address_that_was_sent_to_is_a_breach() -> None:
    refused = "mailgun-refuse@example.org"
    email = replace(stored(0), address=refused)
    books = Books(
        (Request((refused,), 202, {refused: email.id}),), (email,), ((refused, "mailgun"),)
    )
    assert breaches(books) == {Breach.LOST}


def test_a_refused_request_that_was_accepted_is_a_breach() -> None:
    books = replace(
        GOOD, emails=(*GOOD.emails, stored(2)), mailbox=(*GOOD.mailbox, (address(2), "mailgun"))
    )
    assert breaches(books) == {Breach.REFUSED_YET_ACCEPTED}
    assert breaches(books, Terms(misleading=True)) == set()


@pytest.mark.parametrize("status", [None, 503])
def test_a_batch_of_which_some_are_stored_is_a_breach(status: int | None) -> None:
    books = Books((asked(0, 1, status=status),), (stored(0),), ((address(0), "mailgun"),))
    assert breaches(books, Terms(misleading=True)) == {Breach.IN_PART}


def test_an_email_that_is_sent_and_not_stored_is_a_breach() -> None:
    books = replace(GOOD, mailbox=(*GOOD.mailbox, (address(2), "mailgun")))
    assert breaches(books) == {Breach.DOUBLED}


def test_an_email_that_is_stored_twice_is_a_breach() -> None:
    books = replace(GOOD, emails=(*GOOD.emails, replace(stored(1), id=f"{BATCH}-7")))
    assert Breach.DOUBLED in breaches(books)


def test_an_email_that_nobody_asked_for_is_a_breach() -> None:
    books = replace(GOOD, emails=(*GOOD.emails, stored(8)))
    assert Breach.DOUBLED in breaches(books)


def test_what_is_left_in_the_due_index_is_a_breach() -> None:
    assert breaches(replace(GOOD, due=(f"{BATCH}-0",))) == {Breach.LEFT_OVER}


def message(*arguments: object) -> str:
    body = base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode()
    return json.dumps({"body": body, "headers": {"origin": "gen1@host"}})


def test_a_message_with_more_than_ids_is_a_breach() -> None:
    ids = message(f"{BATCH}-0", 0, 1)
    assert breaches(replace(GOOD, messages=(ids,))) == set()
    leaking = message(f"{BATCH}-0", 0, 1, address(0))
    assert breaches(replace(GOOD, messages=(ids, leaking))) == {Breach.LEAK}


def test_messages_are_counted_for_each_email() -> None:
    sent = [message(f"{BATCH}-0", 0, 1), message(f"{BATCH}-0", 1, 2), message(f"{BATCH}-1", 0, 1)]
    assert times_enqueued([*sent, "not JSON"]) == {f"{BATCH}-0": 2, f"{BATCH}-1": 1}
