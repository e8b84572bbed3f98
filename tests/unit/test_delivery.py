"""The rules of delivery: by example, and for any sequence of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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

    def crash(self, sent: bool) -> None:
        """A worker dies, before its request or after it."""
        if self.held:
            held = self.held.pop()
            if sent:
                self.asked.append((held.cycle, held.provider))

    def lose(self) -> None:
        self.messages.clear()

    def sweep(self) -> None:
        """Time passes until the email is due, and the sweep finds it."""
        if self.email.due_at is not None:
            self.now = max(self.now, self.email.due_at)
            # A worker that lives answers within its lease; whoever is still out there is dead.
            if self.email.status is Status.SENDING:
                self.held.clear()
            self.change(delivery.wake(self.email, self.now, self.policy))

    @property
    def over(self) -> bool:
        return self.email.due_at is None


OUTCOMES = st.sampled_from([*Outcome])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("answer"), OUTCOMES),
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("lose")),
        st.tuples(st.just("sweep")),
    ),
    max_size=80,
)
POLICIES = st.builds(
    Policy,
    message_ttl=st.just(60_000),
    lease=st.just(30_000),
    longest_send=st.just(13_000),
    retry_schedule=st.lists(st.integers(1, 86_400_000), max_size=3).map(tuple),
    avoid_duplicates=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    policy=POLICIES,
    length=st.integers(1, 3),
    steps=STEPS,
    finally_=st.lists(OUTCOMES, min_size=1, max_size=3),
)
def test_whatever_happens_an_email_ends_within_the_schedule(
    policy: Policy, length: int, steps: list[tuple[object, ...]], finally_: list[Outcome]
) -> None:
    """Any sequence of outcomes, crashes, lost, late and doubled messages, then none."""
    world = World(policy, queued(chain=CHAIN[:length]))
    world.change(world.email)
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        _check(world)
    # From here on nothing more goes wrong than providers failing.
    passes = len(policy.retry_schedule) + 1
    for turn in range(passes * length * 3 + 3):
        if world.over:
            break
        world.receive(0, keep=False)
        world.answer(finally_[turn % len(finally_)])
        _check(world)
        if not world.messages and not world.held:
            world.sweep()
    event(f"ends {world.email.status}")

    assert world.over
    assert world.email.status in (Status.SENT, Status.FAILED, Status.UNKNOWN)
    if world.email.status is Status.UNKNOWN:
        assert policy.avoid_duplicates
    if world.email.status is Status.FAILED:
        rejected = world.email.attempts[-1].outcome is Outcome.REJECTED
        assert rejected or len(world.email.attempts) == passes * length


def _check(world: World) -> None:
    email, outcomes = world.email, [attempt.outcome for attempt in world.email.attempts]
    # Nobody is asked twice in one pass of the chain.
    assert len(set(world.asked)) == len(world.asked)
    # The attempt number only grows, and each is used once.
    assert world.seen == sorted(world.seen)
    numbers = [attempt.number for attempt in email.attempts]
    assert numbers == list(range(1, len(numbers) + 1))
    # What is open is due; what is over is not.
    assert (email.due_at is None) == (email.status in (Status.SENT, Status.FAILED, Status.UNKNOWN))
    # Accepted and rejected end it at once.
    for ending in (Outcome.ACCEPTED, Outcome.REJECTED):
        assert ending not in outcomes[:-1]
    if outcomes and outcomes[-1] is Outcome.REJECTED:
        assert email.status is Status.FAILED
    if outcomes and outcomes[-1] is Outcome.ACCEPTED:
        assert email.status is Status.SENT
