"""A proxy on loopback between the parts and the local AWS, which fails as it is told.

The local AWS injects no faults. HTTP/1.1 with bodies of a stated length, which is all that AWS's
clients and the local AWS speak.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

from tests.chaos.aws_faults import (
    Answer,
    AwsFault,
    Kind,
    Split,
    chance,
    conflict,
    in_part,
    late,
    messages,
    named,
    refusal,
    vanished,
)

_LOOK_SECONDS = 0.1
"""How soon a request that hangs notices that its client left or the fault is over."""


@dataclass(frozen=True, slots=True)
class _Http:
    """A request or an answer."""

    head: bytes
    """The first line and the headers, without Content-Length and the last empty line."""
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes

    def encoded(self) -> bytes:
        return b"%s\r\nContent-Length: %d\r\n\r\n%s" % (self.head, len(self.body), self.body)

    def carrying(self, body: dict[str, Any]) -> _Http:
        return _Http(self.head, self.headers, json.dumps(body).encode())


class _Reset(Exception):
    """The client gets no answer."""


class Proxy:
    """Listens on `url` while it is entered; faults can be added and taken away at any time."""

    def __init__(self, upstream: str, seed: int) -> None:
        self._upstream = urlsplit(upstream)
        self._rng = Random(seed)
        self._faults: tuple[AwsFault, ...] = ()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._started = threading.Event()
        self._sent: list[str] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._serving: set[asyncio.Task[None] | None] = set()
        """asyncio's own reference to a connection's task goes when its client does."""
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def faulty(self, *faults: AwsFault) -> Iterator[None]:
        """Fail in these ways, too, from now on and until it is left."""
        with self._lock:
            self._faults += faults
        try:
            yield
        finally:
            with self._lock:
                left = list(self._faults)
                for fault in faults:
                    left.remove(fault)
                self._faults = tuple(left)

    def sent(self) -> list[str]:
        """The bodies of all messages that anybody has sent, also of those that got nowhere."""
        return list(self._sent)

    def met(self) -> Counter[tuple[str, str]]:
        """How many requests met a fault, by the service and the kind."""
        return Counter(self._counts)

    # On the thread of the event loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, and a connection of its own to the local AWS."""
        upstream = _Upstream(self._upstream.hostname or "", self._upstream.port or 80)
        self._serving.add(asyncio.current_task())
        try:
            while True:
                request = await _read(reader)
                answer = await self._answer(request, upstream, reader)
                if reader.at_eof() or writer.is_closing():
                    await _give_back(request, answer, upstream)
                writer.write(answer.encoded())
                await writer.drain()
        except (_Reset, asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # A fault has it so, the client left, the local AWS is away, or all is over.
        finally:
            self._serving.discard(asyncio.current_task())
            writer.transport.abort()
            upstream.close()

    async def _answer(
        self, request: _Http, upstream: _Upstream, client: asyncio.StreamReader
    ) -> _Http:
        """Meet the request with the faults that apply; raises `_Reset` to have no answer."""
        service, operation = named(request.headers.get("x-amz-target"), request.body)
        faults = [fault for fault in self._faults if fault.service == service]
        body = json.loads(request.body) if service in ("dynamodb", "sqs") else {}
        if operation.startswith("SendMessage"):
            self._sent += messages(operation, body)
        lost = twice = False
        splits: list[Split] = []
        for fault in faults:
            chosen = chance(self._rng, fault.probability)
            if fault.kind in _ABOUT_ENTRIES:
                split, body = self._disturb_entries(fault, operation, body)
                if split is not None:
                    splits.append(split)
                    if split.part is None:
                        return _own(Answer(200, json.dumps(_merged(splits, {})).encode()))
                    body = split.part
            elif not chosen():
                continue
            elif fault.kind is Kind.DOWN:
                self._meet(fault)
                raise _Reset
            elif fault.kind is Kind.HANG:
                self._meet(fault)
                await self._hang(fault, client)
            elif fault.kind is Kind.SLOW:
                self._meet(fault)
                await asyncio.sleep(self._rng.uniform(0, fault.seconds))
            elif fault.kind is Kind.ERROR:
                self._meet(fault)
                return _own(refusal(service, fault.status, fault.code))
            elif fault.kind is Kind.CONFLICT:
                if refused := conflict(operation, body):
                    self._meet(fault)
                    return _own(refused)
            elif fault.kind is Kind.LOST:
                lost = True
                self._meet(fault)
            elif fault.kind is Kind.TWICE and operation.startswith("SendMessage"):
                twice = True
                self._meet(fault)
        if faults and body:
            request = request.carrying(body)
        answer = await upstream.ask(request)
        if twice:
            await upstream.ask(request)
        if lost:
            raise _Reset
        if splits:
            answer = _own(
                Answer(200, json.dumps(_merged(splits, json.loads(answer.body))).encode())
            )
        return answer

    def _disturb_entries(
        self, fault: AwsFault, operation: str, body: dict[str, Any]
    ) -> tuple[Split | None, dict[str, Any]]:
        chosen = chance(self._rng, fault.probability)
        if fault.kind is Kind.LATE:
            delayed = late(
                operation, body, chosen, lambda: self._rng.randint(1, max(1, int(fault.seconds)))
            )
            if delayed != body:
                self._meet(fault)
            return None, delayed
        change = vanished if fault.kind is Kind.VANISH else in_part
        split = change(operation, body, chosen)
        if split is not None:
            self._meet(fault)
        return split, body

    async def _hang(self, fault: AwsFault, client: asyncio.StreamReader) -> None:
        while any(fault is one for one in self._faults) and not client.at_eof():
            await asyncio.sleep(_LOOK_SECONDS)
        raise _Reset

    def _meet(self, fault: AwsFault) -> None:
        self._counts[fault.service, fault.kind] += 1


_ABOUT_ENTRIES = (Kind.PARTIAL, Kind.VANISH, Kind.LATE)


def _merged(splits: list[Split], answer: dict[str, Any]) -> dict[str, Any]:
    """The part was split from the whole by one after the other: back in the opposite order."""
    for split in reversed(splits):
        answer = split.merge(answer)
    return answer


async def _give_back(request: _Http, answer: _Http, upstream: _Upstream) -> None:
    """Messages for a client that left while it waited stay in the queue, as with AWS.

    The local AWS does not notice, and would hide them from all others.
    """
    _, operation = named(request.headers.get("x-amz-target"), b"")
    received = json.loads(answer.body).get("Messages") if operation == "ReceiveMessage" else None
    if received:
        entries = [
            {"Id": str(n), "ReceiptHandle": each["ReceiptHandle"], "VisibilityTimeout": 0}
            for n, each in enumerate(received)
        ]
        target = b"ChangeMessageVisibilityBatch"
        head = request.head.replace(b"AmazonSQS.ReceiveMessage", b"AmazonSQS." + target)
        url = json.loads(request.body)["QueueUrl"]
        back = _Http(head, request.headers, b"").carrying({"QueueUrl": url, "Entries": entries})
        await upstream.ask(back)


class _Upstream:
    """A connection to the local AWS, made when it is first wanted and again when it is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: _Http) -> _Http:
        used = self._streams is not None
        try:
            return await self._ask(request)
        except (asyncio.IncompleteReadError, OSError):
            self.close()
            if not used:
                raise
        # It was closed for having been idle.
        return await self._ask(request)

    async def _ask(self, request: _Http) -> _Http:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request.encoded())
        await writer.drain()
        return await _read(reader)

    def close(self) -> None:
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].transport.abort()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> _Http:
    head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    kept = [first]
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.decode().lower()] = value.strip().decode("latin-1")
        # The second is about the body's bytes, which may become others.
        if name.lower() not in (b"content-length", b"x-amz-crc32"):
            kept.append(line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return _Http(b"\r\n".join(kept), headers, body)


def _own(answer: Answer) -> _Http:
    head = b"HTTP/1.1 %d -\r\nContent-Type: %s" % (answer.status, answer.content_type.encode())
    return _Http(head, {}, answer.body)
