"""How long a small sender waits behind a big one, by simulation: no local AWS has SQS's fair queues.

One key sends 100,000 emails at once, the other one a second. One worker sends 250 emails a second and
has at most 64 messages in hand. Messages live a minute, and the sweep brings back those that died, the
most overdue first, as far as the queue has room: as mailrelay does.

A queue delivers the oldest message first. A fair one, where each message names its sender by
`MessageGroupId`, does so too until it finds a noisy neighbour: a group that has more than a
tenth of the messages in flight, and at least 30. Then messages of the others come first, until the
neighbour's backlog is gone. See "How Amazon SQS fair queues work" in its developer guide,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median, quantiles

from benchmarks.bench import Bench
from benchmarks.result import Figure, Result

BIG = 100_000
RATE = 250.0
IN_HAND = 64
LIVES = 60.0
ROOM = 384
"""Messages that the sweep lets wait at most (`mailrelay.assembly.sweeper`, with the defaults)."""

_POLL = 10
_NOISY_SHARE, _NOISY_LEAST = 0.1, 30


@dataclass(slots=True)
class Message:
    small: bool
    accepted: float
    """When its email was, in seconds."""
    sent: float
    """When SQS took it."""


@dataclass(slots=True)
class Queue:
    fair: bool
    waiting: dict[bool, deque[Message]] = field(
        default_factory=lambda: {True: deque(), False: deque()}
    )
    """By whether the sender is the small one."""
    in_hand: deque[Message] = field(default_factory=deque)
    """Received, and in flight until a thread takes them."""

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def put(self, message: Message) -> None:
        self.waiting[message.small].append(message)

    def poll(self) -> None:
        for _ in range(min(_POLL, len(self))):
            self.in_hand.append(self.waiting[self._next()].popleft())

    def _next(self) -> bool:
        small, big = self.waiting[True], self.waiting[False]
        if not small or not big:
            return bool(small)
        theirs = sum(not message.small for message in self.in_hand)
        noisy = theirs >= max(_NOISY_LEAST, _NOISY_SHARE * len(self.in_hand))
        return (self.fair and noisy) or small[0].sent < big[0].sent

    def expire(self, now: float) -> list[Message]:
        """Those that have lived for too long, oldest first."""
        gone: list[Message] = []
        for waiting in self.waiting.values():
            while waiting and waiting[0].sent + LIVES <= now:
                gone.append(waiting.popleft())
        return sorted(gone, key=lambda message: message.sent)


def simulate(*, fair: bool, big: int = BIG) -> list[float]:
    """Seconds from acceptance to a thread, of each of the small sender's emails."""
    queue, due = Queue(fair), deque[Message]()
    for _ in range(big):
        queue.put(Message(small=False, accepted=0, sent=0))
    waits: list[float] = []
    big_left, now, next_small = big, 0.0, 0.5
    while big_left or due or len(queue) or queue.in_hand:
        now += 1 / RATE
        if big_left and now >= next_small:
            queue.put(Message(small=True, accepted=now, sent=now))
            next_small += 1
        due.extend(queue.expire(now))
        while due and len(queue) < ROOM:
            message = due.popleft()
            message.sent = now
            queue.put(message)
        if len(queue.in_hand) <= IN_HAND - _POLL:
            queue.poll()
        if queue.in_hand:
            message = queue.in_hand.popleft()
            if message.small:
                waits.append(now - message.accepted)
            else:
                big_left -= 1
    return waits


def measure(bench: Bench) -> Result:
    alone = simulate(fair=False, big=1)
    rows, raw = [], {}
    for fair in (False, True):
        waits = simulate(fair=fair)
        p99 = quantiles(waits, n=100, method="inclusive")[98]
        name = "with MessageGroupId" if fair else "without"
        what = f"wait of one email a second behind {BIG:,}, {name} (simulated), p50 and p99"
        rows.append(Figure(what, f"{median(waits):.2f} and {p99:.2f} s"))
        raw[name] = waits
        bench.say(f"{what}: {rows[-1].mailrelay}")
    return Result("fairness", tuple(rows), {"seconds": raw, "alone": alone})
