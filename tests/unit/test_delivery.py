"""The rules of delivery: by example, and for any sequence of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mailrelay import delivery
from mailrelay.delivery import Policy
from mailrelay.message import Address, Attempt, Email, EmailId, Hint, Outcome, Status
from tests.support.records import claimed

NOW = 1_800_000_000_000
CHAIN = ("mailgun", "ses", "sendgrid")
POLICY = Policy(
    message_ttl=60_000,
    lease=30_000,
    longest_send=13_000,
    retry_schedule=(60_000, 300_000),
    longest_life=500_000,
    avoid_duplicates=False,
)
AVOID = replace(POLICY, avoid_duplicates=True)


def queued(**changes: object) -> Email:
    email = Email(
        id=EmailId("01M86CPHWVMXAYHCK7BA5TAEQD", 0),
        key_name="demo",
        to=Address("pedro@example.org", "Pedro"),
        chain=CHAIN,
        status=Status.QUEUED,
        attempt=1,
        provider_index=0,
        cycle=0,
        due_at=NOW + POLICY.message_ttl,
        created_at=NOW,
    )
    return replace(email, **changes)  # type: ignore[arg-type]


def attempt_of(email: Email, outcome: Outcome) -> Attempt:
    return Attempt(
        number=email.attempt,
        provider=email.provider,
        outcome=outcome,
        code="x",
        reason="y",
        started_at=NOW,
        duration_ms=1,
    )


def after(email: Email, outcome: Outcome, policy: Policy = POLICY) -> Email:
    held = claimed(email, NOW, policy.lease)
    return delivery.conclude(held, attempt_of(held, outcome), NOW + 5, policy)


def test_an_accepted_email_is_over() -> None:
    sent = after(queued(), Outcome.ACCEPTED)

    assert (sent.status, sent.due_at) == (Status.SENT, None)
    assert delivery.retries(sent) == 0
    assert delivery.last_error(sent) is None


def test_a_rejected_email_ends_at_once_and_tries_nobody_else() -> None:
    failed = after(queued(), Outcome.REJECTED)

    assert (failed.status, failed.due_at) == (Status.FAILED, None)
    assert [attempt.provider for attempt in failed.attempts] == ["mailgun"]
    assert delivery.last_error(failed) == failed.attempts[-1]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNAVAILABLE, Outcome.UNKNOWN])
def test_a_failed_attempt_is_followed_by_the_next_provider_at_once(outcome: Outcome) -> None:
    following = after(queued(), outcome)

    assert following.status is Status.QUEUED
    assert following.hint == Hint(following.id, 1, 2, key_name=following.key_name)
    assert following.due_at == NOW + 5 + POLICY.message_ttl
    assert delivery.retries(following) == 1


@pytest.mark.parametrize(("cycle", "wait"), [(0, 60_000), (1, 300_000)])
def test_an_exhausted_chain_is_deferred_as_the_schedule_says(cycle: int, wait: int) -> None:
    deferred = after(queued(provider_index=2, attempt=3, cycle=cycle), Outcome.RETRY)

    assert deferred.status is Status.DEFERRED
    assert deferred.due_at == NOW + 5 + wait
    assert (deferred.attempt, deferred.provider_index, deferred.cycle) == (4, 0, cycle + 1)


def test_an_exhausted_schedule_ends_in_failure() -> None:
    failed = after(queued(provider_index=2, attempt=9, cycle=2), Outcome.RETRY)

    assert (failed.status, failed.due_at) == (Status.FAILED, None)


@pytest.mark.parametrize("provider_index", [0, 1, 2])
def test_an_unanswered_request_stops_where_duplicates_are_to_be_avoided(
    provider_index: int,
) -> None:
    unknown = after(queued(provider_index=provider_index), Outcome.UNKNOWN, AVOID)

    assert (unknown.status, unknown.due_at) == (Status.UNKNOWN, None)
    error = delivery.last_error(unknown)
    assert error is not None
    assert error.outcome is Outcome.UNKNOWN


def test_a_queued_email_whose_message_is_gone_gets_another_for_the_same_attempt() -> None:
    email = queued(provider_index=1, attempt=2)
    woken = delivery.wake(email, NOW + 60_000, POLICY)

    assert woken.hint == email.hint
    assert woken.status is Status.QUEUED
    assert woken.due_at == NOW + 120_000


def test_a_deferred_email_begins_its_chain_again_when_its_time_has_come() -> None:
    deferred = after(queued(provider_index=2, attempt=3), Outcome.RETRY)
    woken = delivery.wake(deferred, NOW + 70_000, POLICY)

    assert woken.status is Status.QUEUED
    assert woken.hint == Hint(woken.id, 0, 4, key_name=woken.key_name)


def test_an_email_whose_worker_died_counts_as_unanswered() -> None:
    held = claimed(queued(), NOW, POLICY.lease)
    allowed = delivery.wake(held, NOW + 40_000, POLICY)
    avoided = delivery.wake(held, NOW + 40_000, AVOID)

    assert allowed.status is Status.QUEUED
    assert allowed.provider == "ses"
    assert avoided.status is Status.UNKNOWN
    for email in (allowed, avoided):
        assert email.attempts[-1].outcome is Outcome.UNKNOWN
        assert email.attempts[-1].code == "abandoned"
        assert email.attempts[-1].started_at == NOW
        assert email.attempts[-1].duration_ms is None


@pytest.mark.parametrize("policy", [POLICY, AVOID])
def test_an_acceptance_that_comes_after_the_lease_still_ends_the_email(policy: Policy) -> None:
    """The sweep took it for abandoned; another provider may have been asked, or failed, since."""
    held = claimed(queued(), NOW, policy.lease)
    late = replace(attempt_of(held, Outcome.ACCEPTED), message_id="<id@provider.example>")
    email = delivery.wake(held, NOW + 40_000, policy)
    if email.status is Status.QUEUED:
        email = after(email, Outcome.RETRY)

    sent = delivery.accepted_late(email, late)

    assert (sent.status, sent.due_at) == (Status.SENT, None)
    assert sent.attempts[0] == late
    assert delivery.acceptance(sent) == late
    assert [each.number for each in sent.attempts] == list(range(1, len(sent.attempts) + 1))
    assert delivery.retries(sent) == len(sent.attempts) - 1


SCHEDULE_ENDS = NOW + sum(POLICY.retry_schedule)


def passed_over(
    email: Email,
    now: int = NOW,
    again_at: int = NOW + 10_000,
    jitter: float = 0.0,
    undecided: bool = False,
) -> Email:
    """The email after one more of its chain was left alone."""
    held = claimed(email, now, POLICY.lease)
    return delivery.pass_over(
        held, "left alone", now, again_at, POLICY, jitter, undecided=undecided
    )


def chain_passed_over(email: Email, now: int = NOW, **kwargs: Any) -> Email:
    """The email after all of its chain, from the one whose turn it is, were left alone."""
    for _ in email.chain[email.provider_index :]:
        email = passed_over(email, now, **kwargs)
    return email


def woken(email: Email, now: int | None = None) -> Email:
    """The email when the sweep has found it due."""
    at = email.due_at if now is None else now
    assert at is not None
    return delivery.wake(email, at, POLICY)


def test_a_provider_that_is_left_alone_is_followed_by_the_next_and_asked_nothing() -> None:
    following = passed_over(queued())

    assert following.hint == Hint(
        following.id, provider_index=1, attempt=2, key_name=following.key_name
    )
    assert following.due_at == NOW + POLICY.message_ttl
    (attempt,) = following.attempts
    assert attempt == Attempt(
        1, "mailgun", Outcome.UNAVAILABLE, "passed_over", "left alone", NOW, None
    )
    assert delivery.retries(following) == 0


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_chain_of_which_one_was_asked_is_used_up(asked: int) -> None:
    email = queued()
    for index in range(len(CHAIN)):
        email = after(email, Outcome.RETRY) if index == asked else passed_over(email)

    assert (email.status, email.cycle, email.attempt) == (Status.DEFERRED, 1, 4)
    assert email.due_at in (NOW + 60_000, NOW + 5 + 60_000)
    assert delivery.retries(email) == 1


@pytest.mark.parametrize("length", [1, 2, 3])
def test_where_all_of_a_chain_are_left_alone_the_email_waits_and_uses_up_nothing(
    length: int,
) -> None:
    email = chain_passed_over(queued(chain=CHAIN[:length]))

    assert (email.status, email.cycle, email.provider_index) == (Status.DEFERRED, 0, 0)
    assert email.due_at == NOW + 10_000
    assert email.attempt == length + 1
    assert [each.provider for each in email.attempts] == list(CHAIN[:length])
    assert delivery.retries(email) == 0
    assert woken(email).hint == Hint(email.id, 0, length + 1, key_name=email.key_name)


@pytest.mark.parametrize(
    ("again_in", "jitter", "wait"),
    [
        (10_000, 0.0, 10_000),
        (10_000, 0.5, 15_000),
        (10_000, 1.0, 20_000),
        (-5, 0.5, 0),
        (21_600_000, 0.0, delivery.LONGEST_WAIT // 2),
        (21_600_000, 1.0, delivery.LONGEST_WAIT),
    ],
)
def test_waiting_ends_by_chance_so_that_not_all_come_back_at_once(
    again_in: int, jitter: float, wait: int
) -> None:
    """Also where the wait is cut short."""
    policy = replace(POLICY, retry_schedule=(86_400_000,))
    email = queued(chain=("mailgun",))
    waits = delivery.pass_over(
        email, "left alone", NOW, NOW + again_in, policy, jitter, undecided=False
    )

    assert waits.due_at == NOW + wait


def test_an_item_does_not_grow_while_its_email_waits() -> None:
    email = after(after(after(queued(), Outcome.RETRY), Outcome.RETRY), Outcome.RETRY)
    for _ in range(20):
        assert email.due_at is not None
        now = email.due_at
        email = chain_passed_over(woken(email), now, again_at=now + 1000)

    assert [attempt.passed_over for attempt in email.attempts] == [False] * 3 + [True] * 3
    assert [attempt.number for attempt in email.attempts] == [1, 2, 3, 61, 62, 63]
    assert email.attempt == 64
    assert delivery.retries(email) == 3


def test_the_schedule_runs_on_while_an_email_waits() -> None:
    """What was asked for ten minutes in an outage is asked less often afterwards, not as at first."""
    waits = chain_passed_over(queued())
    late = NOW + 61_000
    email = woken(waits, late)
    for _ in CHAIN:
        held = claimed(email, late, POLICY.lease)
        email = delivery.conclude(held, attempt_of(held, Outcome.RETRY), late, POLICY)

    assert (email.status, email.cycle) == (Status.DEFERRED, 1)
    assert email.due_at == max(NOW + 60_000, late)


def test_an_email_that_finds_all_left_alone_after_its_schedule_has_failed() -> None:
    """It has waited for the first of them, and not just until its schedule was over."""
    now = SCHEDULE_ENDS - 3_000
    email = chain_passed_over(woken(chain_passed_over(queued()), now), now, again_at=now + 10_000)
    assert (email.status, email.due_at, email.cycle) == (Status.DEFERRED, now + 10_000, 1)

    ended = chain_passed_over(woken(email), now + 10_000)
    assert (ended.status, ended.due_at) == (Status.FAILED, None)
    error = delivery.last_error(ended)
    assert error is not None
    assert error.passed_over
    assert delivery.retries(ended) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_an_email_that_comes_after_its_schedule_waits_once(asked: bool) -> None:
    """All the workers were away, or it has been asked each time: a probe may be under way."""
    now = SCHEDULE_ENDS + 5_000
    email = queued(cycle=2, attempt=7) if asked else queued()
    waits = chain_passed_over(email, now, again_at=now + 10_000, jitter=0.5)
    assert (waits.status, waits.due_at) == (Status.DEFERRED, now + 15_000)

    sent = after(woken(waits), Outcome.ACCEPTED)
    assert sent.status is Status.SENT
    ended = chain_passed_over(woken(waits), now + 15_000)
    assert (ended.status, ended.due_at) == (Status.FAILED, None)


def test_no_email_fails_while_one_of_its_chain_is_tried() -> None:
    """A backlog comes back together, one of it asks, and all the others would fail meanwhile."""
    now = SCHEDULE_ENDS + 20_000
    waits = chain_passed_over(queued(), SCHEDULE_ENDS)
    again = chain_passed_over(woken(waits, now), now, again_at=now + 10_000, undecided=True)
    assert (again.status, again.due_at) == (Status.DEFERRED, now + 10_000)
    assert len(again.attempts) == len(CHAIN)

    assert after(woken(again), Outcome.ACCEPTED).status is Status.SENT
    assert chain_passed_over(woken(again), now + 10_000).status is Status.FAILED


def test_a_chain_that_is_asked_after_its_schedule_is_not_begun_again() -> None:
    now = SCHEDULE_ENDS + 5_000
    email = woken(chain_passed_over(queued(), now))
    for _ in CHAIN:
        email = after(email, Outcome.RETRY)

    assert (email.status, email.due_at) == (Status.FAILED, None)


def test_an_acceptance_that_comes_after_waiting_still_ends_the_email() -> None:
    held = claimed(queued(), NOW, POLICY.lease)
    late = replace(attempt_of(held, Outcome.ACCEPTED), message_id="<id@provider.example>")
    abandoned = delivery.wake(held, NOW + 40_000, POLICY)
    email = chain_passed_over(woken(chain_passed_over(abandoned, NOW + 40_000), NOW + 100_000))

    sent = delivery.accepted_late(email, late)

    assert (sent.status, sent.due_at) == (Status.SENT, None)
    assert delivery.acceptance(sent) == late
    assert delivery.retries(sent) == 0


@dataclass
class World:
    """One email, its messages in a queue that loses and doubles, and workers that crash.

    The rules decide everything; the world does what the store does, with a plain variable in
    place of a conditional write.
    """

    policy: Policy
    email: Email
    now: int = NOW
    messages: list[Hint] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    """(pass of the chain, provider) for each request that went out."""
    held: list[Email] = field(default_factory=list)
    """What workers that have claimed the email believe."""
    seen: list[int] = field(default_factory=list)

    def change(self, email: Email) -> None:
        self.seen.append(email.attempt)
        self.email = email
        if email.status is Status.QUEUED:
            self.messages.append(email.hint)

    def receive(self, index: int, keep: bool) -> None:
        """A worker takes a message; `keep` leaves a copy of it in the queue."""
        if not self.messages:
            return
        index %= len(self.messages)
        hint = self.messages[index] if keep else self.messages.pop(index)
        if (self.email.status, self.email.attempt) == (Status.QUEUED, hint.attempt):
            self.email = claimed(self.email, self.now, self.policy.lease)
            self.held.append(self.email)

    def answer(self, outcome: Outcome) -> None:
        """A worker's request is answered, and what came of it is written down if it may be."""
        if not self.held:
            return
        held = self.held.pop()
        self.asked.append((held.cycle, held.provider))
        concluded = delivery.conclude(held, attempt_of(held, outcome), self.now, self.policy)
        if self.email is held:
            self.change(concluded)

    def pass_over(self, again_in: int, jitter: float, undecided: bool = False) -> None:
        """A worker finds that the provider is left alone."""
        if not self.held:
            return
        held = self.held.pop()
        passed = delivery.pass_over(
            held,
            "left alone",
            self.now,
            self.now + again_in,
            self.policy,
            jitter,
            undecided=undecided,
        )
        if self.email is held:
            self.change(passed)

    def crash(self, sent: bool) -> None:
        """A worker dies, before its request or after it."""
        if self.held:
            held = self.held.pop()
            if sent:
                self.asked.append((held.cycle, held.provider))

    def lose(self) -> None:
        self.messages.clear()

    def sweep(self, late: int) -> None:
        """Time passes until the email is due, and the sweep finds it, `late` or not."""
        if self.email.due_at is not None:
            self.now = max(self.now, self.email.due_at) + late
            # A worker that lives answers within its lease; whoever is still out there is dead.
            if self.email.status is Status.SENDING:
                self.held.clear()
            self.change(delivery.wake(self.email, self.now, self.policy))

    @property
    def over(self) -> bool:
        return self.email.due_at is None


OUTCOMES = st.sampled_from([*Outcome])
LEFT_ALONE = st.tuples(st.integers(-60_000, 21_600_000), st.floats(0, 1))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("answer"), OUTCOMES),
        st.tuples(st.just("pass_over")).flatmap(
            lambda name: st.tuples(LEFT_ALONE, st.booleans()).map(
                lambda alone: (*name, *alone[0], alone[1])
            )
        ),
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("lose")),
        st.tuples(st.just("sweep"), st.integers(0, 1000) | st.integers(0, 86_400_000)),
    ),
    max_size=80,
)
POLICIES = st.builds(
    Policy,
    message_ttl=st.just(60_000),
    lease=st.just(30_000),
    longest_send=st.just(13_000),
    retry_schedule=st.lists(st.integers(1, 86_400_000), max_size=3).map(tuple),
    longest_life=st.just(5 * 86_400_000),
    avoid_duplicates=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    policy=POLICIES,
    length=st.integers(1, 3),
    steps=STEPS,
    finally_=st.lists(OUTCOMES | LEFT_ALONE, min_size=1, max_size=4),
)
def test_whatever_happens_an_email_ends_within_the_schedule(
    policy: Policy, length: int, steps: list[tuple[object, ...]], finally_: list[Any]
) -> None:
    """Any sequence of outcomes, crashes, lost, late and doubled messages, then none.

    And any of providers that are left alone.
    """
    world = World(policy, queued(chain=CHAIN[:length]))
    world.change(world.email)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        _check(world)
    # From here on nothing more goes wrong than providers failing, or being left alone.
    passes, schedule = len(policy.retry_schedule) + 1, sum(policy.retry_schedule)
    late = schedule // 10 + 1
    for turn in range((passes + 10) * length * 3 + 3):
        if world.over:
            break
        world.receive(0, keep=False)
        end = finally_[turn % len(finally_)]
        if isinstance(end, Outcome):
            world.answer(end)
        else:
            world.pass_over(*end)
        _check(world)
        if not world.messages and not world.held:
            world.sweep(late)
    event(f"ends {world.email.status}")

    assert world.over
    assert world.email.status in (Status.SENT, Status.FAILED, Status.UNKNOWN)
    if world.email.status is Status.UNKNOWN:
        assert policy.avoid_duplicates
    attempts = world.email.attempts
    if world.email.status is Status.FAILED and attempts[-1].outcome is not Outcome.REJECTED:
        assert world.now >= NOW + schedule
        if not any(attempt.passed_over for attempt in attempts):
            assert len(attempts) == passes * length


def _check(world: World) -> None:
    email, outcomes = world.email, [attempt.outcome for attempt in world.email.attempts]
    # Nobody is asked twice in one pass of the chain.
    assert len(set(world.asked)) == len(world.asked)
    # The attempt number only grows, and each is used once.
    assert world.seen == sorted(world.seen)
    numbers = [attempt.number for attempt in email.attempts]
    assert numbers == sorted(set(numbers))
    # Whoever was asked stands there, and of the times that nobody was, one between two others.
    assert delivery.retries(email) + (email.status is Status.SENT) <= len(email.chain) * (
        len(world.policy.retry_schedule) + 1
    )
    assert len(email.attempts) <= 2 * len(email.chain) * (len(world.policy.retry_schedule) + 1) + (
        len(email.chain)
    )
    # It waits no longer than the longest wait of all.
    if email.status is Status.DEFERRED:
        longest = max(*world.policy.retry_schedule, 0, delivery.LONGEST_WAIT)
        assert email.due_at is not None
        assert email.due_at <= world.now + longest
    # What is open is due; what is over is not.
    assert (email.due_at is None) == (email.status in (Status.SENT, Status.FAILED, Status.UNKNOWN))
    # Accepted and rejected end it at once.
    for ending in (Outcome.ACCEPTED, Outcome.REJECTED):
        assert ending not in outcomes[:-1]
    if outcomes and outcomes[-1] is Outcome.REJECTED:
        assert email.status is Status.FAILED
    if outcomes and outcomes[-1] is Outcome.ACCEPTED:
        assert email.status is Status.SENT


# What a person may decide

RETENTION = 30 * 86_400_000
UNKNOWN = after(queued(), Outcome.UNKNOWN, AVOID)
FAILED = after(queued(provider_index=2, attempt=9, cycle=2), Outcome.RETRY)
REJECTED = after(queued(), Outcome.REJECTED)
DEFERRED = after(queued(provider_index=2, attempt=3), Outcome.RETRY)
SENT = after(queued(), Outcome.ACCEPTED)
SENDING = claimed(queued(), NOW, POLICY.lease)


def resend(email: Email, now: int = NOW + 10, expires_at: int = NOW + RETENTION) -> Email:
    return delivery.resend(email, expires_at, now, POLICY)


@pytest.mark.parametrize("email", [UNKNOWN, FAILED, REJECTED, DEFERRED], ids=lambda e: e.status)
def test_a_resent_email_begins_its_chain_and_its_schedule_again(email: Email) -> None:
    again = resend(email)

    assert again.status is Status.QUEUED
    number = email.attempts[-1].number + 1
    assert again.hint == Hint(email.id, 0, number, key_name=email.key_name)
    assert (again.cycle, again.due_at) == (0, NOW + 10 + POLICY.message_ttl)
    assert again.restarted_at == NOW + 10
    assert again.attempts == email.attempts


@pytest.mark.parametrize("email", [queued(), SENDING, SENT], ids=lambda email: email.status)
def test_an_email_that_is_under_way_or_sent_is_not_resent(email: Email) -> None:
    with pytest.raises(delivery.NotApplicable, match=f"is {email.status}; .* unknown, failed"):
        resend(email)


def test_an_email_is_not_resent_where_it_would_be_removed_before_it_is_over() -> None:
    """TTL would take it away without a word, and nothing may be lost."""
    now = NOW + 3_600_000
    last = now + POLICY.longest_life

    assert resend(FAILED, now, last).status is Status.QUEUED
    with pytest.raises(
        delivery.NotApplicable, match=r"removed in 0\.1 hours, .* may take 0\.1 hours"
    ):
        resend(FAILED, now, last - 1)
    with pytest.raises(delivery.NotApplicable, match=r"removed in 0\.0 hours"):
        resend(FAILED, now, now - 1)


def test_an_email_is_resent_until_its_attempts_fill_its_item() -> None:
    each_time = len(CHAIN) * (len(POLICY.retry_schedule) + 1)
    attempts = tuple(
        replace(FAILED.attempts[0], number=number) for number in range(1, 501 - each_time)
    )

    assert resend(replace(FAILED, attempts=attempts)).status is Status.QUEUED
    with pytest.raises(delivery.NotApplicable, match=r"has 492 attempts .* 9 more.* the 500"):
        resend(replace(FAILED, attempts=(*attempts, FAILED.attempts[0])))


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED])
def test_a_person_says_how_an_unknown_email_ended(status: Status) -> None:
    resolved = delivery.resolve(UNKNOWN, status, NOW + 10)

    assert (resolved.status, resolved.due_at, resolved.resolved_at) == (status, None, NOW + 10)
    assert resolved.attempts == UNKNOWN.attempts
    assert delivery.resolve(resolved, status, NOW + 99) is resolved


def test_an_email_that_was_found_sent_was_accepted_by_whoever_did_not_answer() -> None:
    twice = after(resend(UNKNOWN), Outcome.UNKNOWN, AVOID)
    sent = delivery.resolve(twice, Status.SENT, NOW)

    assert delivery.acceptance(sent) == twice.attempts[-1]
    assert delivery.last_error(sent) is None
    assert delivery.last_error(delivery.resolve(twice, Status.FAILED, NOW)) == twice.attempts[-1]


@pytest.mark.parametrize(
    ("email", "status"),
    [
        *((email, status) for email in (queued(), SENDING, DEFERRED) for status in
          (Status.SENT, Status.FAILED)),
        (SENT, Status.FAILED),
        (FAILED, Status.SENT),
        (delivery.resolve(UNKNOWN, Status.SENT, NOW), Status.FAILED),
    ],
)  # fmt: skip
def test_nobody_decides_what_is_under_way_or_known(email: Email, status: Status) -> None:
    with pytest.raises(delivery.NotApplicable, match=f"is {email.status}; .* unknown"):
        delivery.resolve(email, status, NOW)


@pytest.mark.parametrize(
    "decided",
    [
        delivery.resolve(UNKNOWN, Status.FAILED, NOW),
        delivery.resolve(UNKNOWN, Status.SENT, NOW),
        resend(UNKNOWN),
        resend(delivery.resolve(UNKNOWN, Status.FAILED, NOW)),
        claimed(resend(UNKNOWN), NOW, POLICY.lease),
        after(resend(UNKNOWN), Outcome.UNKNOWN, AVOID),
        after(resend(UNKNOWN), Outcome.REJECTED),
    ],
)
def test_an_acceptance_that_comes_after_a_person_decided_counts_more(decided: Email) -> None:
    """Its worker was away so long that the email was given up, and it comes back."""
    late = attempt_of(queued(), Outcome.ACCEPTED)

    sent = delivery.accepted_late(decided, late)

    assert (sent.status, sent.due_at, sent.resolved_at) == (Status.SENT, None, None)
    assert delivery.acceptance(sent) == late
    assert [each.number for each in sent.attempts] == list(range(1, len(sent.attempts) + 1))


@settings(max_examples=100, deadline=None)
@given(policy=POLICIES, length=st.integers(1, 3), steps=STEPS, outcome=OUTCOMES)
def test_whatever_has_happened_a_resent_email_ends_within_the_schedule_again(
    policy: Policy, length: int, steps: list[tuple[object, ...]], outcome: Outcome
) -> None:
    world = World(policy, queued(chain=CHAIN[:length]))
    world.change(world.email)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    before = world.email
    try:
        again = delivery.resend(before, world.now + RETENTION * 400, world.now, policy)
    except delivery.NotApplicable:
        assert before.status in (Status.QUEUED, Status.SENDING, Status.SENT)
        return
    event(f"resent {before.status}")
    # Copies of old messages are still in the queue: all of them are void.
    old = len(world.messages)
    assert all(hint.attempt < again.attempt for hint in world.messages)
    world.change(again)
    passes = len(policy.retry_schedule) + 1
    for _ in range(old + passes * length * 3 + 3):
        world.receive(0, keep=False)
        world.answer(outcome)
        if not world.messages and not world.held:
            world.sweep(0)

    assert world.over
    assert world.seen == sorted(world.seen)
    numbers = [attempt.number for attempt in world.email.attempts]
    assert numbers == sorted(set(numbers))
    if world.email.status is Status.FAILED and outcome is not Outcome.REJECTED:
        assert len(numbers) - len(before.attempts) == passes * length
