"""``POST /emails/send``: what is accepted, what is refused, and that nothing is half accepted."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from mailrelay.message import Address, Content
from tests.unit import test_web_app
from tests.unit.test_web_app import BUCKET, FUTURE, World, a_body, errors_of, problem_of

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

CONTROLS = ["\r", "\n", "\r\n", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"]
HALVES = ["\ud800", "\udfff", "\udc00\ud800"]


def test_accepts_the_example(world: World) -> None:
    """The contract's example is answered as the contract says, and lies in DynamoDB."""
    response = world.send()
    assert response.status_code == 202
    assert response.content_type == "application/json"
    answer = response.json
    assert answer == {
        "id": answer["id"],
        "status": "queued",
        "emails": [
            {"id": answer["emails"][0]["id"], "email": "pedro@example.org", "status": "queued"}
        ],
    }
    assert response.headers["Location"] == f"/emails/{answer['id']}"
    assert world.get(response.headers["Location"]).status_code == 200
    assert "Idempotency-Replayed" not in response.headers
    assert [str(hint.email_id) for hint in world.queue.hints] == [answer["emails"][0]["id"]]


def test_all_fields_arrive(world: World) -> None:
    """Nothing that is given is lost on the way to whoever sends it."""
    answer = world.accepted(
        subject="Grüße 🎉",
        replyTo={"email": "answers@example.com", "name": "Antworten"},
        headers={"X-Campaign": "été", "List-Unsubscribe": "<https://example.com/u?a=1>"},
        providers=["sendgrid", "mailgun"],
    )
    batch, content = world.store.batch_with_content(answer["id"]) or pytest.fail("not stored")
    assert batch.sender == Address("facundo@example.com", "Facundo")
    assert batch.subject == "Grüße 🎉"
    assert batch.chain == ("sendgrid", "mailgun")
    assert batch.key_name == "shop"
    assert content == Content(
        plain="test",
        html="<p>test</p>",
        reply_to=Address("answers@example.com", "Antworten"),
        headers={"X-Campaign": "été", "List-Unsubscribe": "<https://example.com/u?a=1>"},
    )
    [email] = world.store.emails(answer["id"])
    assert (email.to, email.chain) == (Address("pedro@example.org", "Pedro"), batch.chain)


@pytest.mark.parametrize("path", ["/emails/send", "/emails/send/"])
def test_with_and_without_slash(world: World, path: str) -> None:
    assert world.call("POST", path, json=a_body()).status_code == 202


@pytest.mark.parametrize(
    "changes",
    [
        {"plainContent": None},
        {"htmlContent": None},
        {"from": {"email": "facundo@example.com"}},
        {"destinations": [{"email": "pedro@example.org"}]},
        {"destinations": [{"email": "pedro@example.org"}] * 2},
        {"subject": "s"},
        {"subject": "é" * 998},
        {"subject": " "},
        {"plainContent": "\n"},
        {"plainContent": "a\r\nb\0\u2028"},
        {"headers": {}},
        {"headers": {"X-A": "a" * 993}},
        {"headers": {"x-a": "a", "LIST-ID": "<list.example.com>"}},
        {"headers": {"X-value": "a", "X-key": "b"}},
        {"providers": ["ses"]},
        {"providers": ["sendgrid", "ses", "mailgun"]},
    ],
)
def test_accepts(world: World, changes: dict[str, Any]) -> None:
    """Optional fields may be missing, and each field may be as long as the contract says."""
    world.accepted(**changes)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("pedro@bücher.example.org", "pedro@bücher.example.org"),
        ("pedro@xn--bcher-kva.example.org", "pedro@bücher.example.org"),
        ("jörg@example.org", "jörg@example.org"),
        ("用户@例子.example.org", "用户@例子.example.org"),
        ("Pedro@EXAMPLE.org", "Pedro@example.org"),
        ("pedro+tag@example.org", "pedro+tag@example.org"),
        ("o'pedro@example.org", "o'pedro@example.org"),
        ('"pedro sanchez"@example.org', '"pedro sanchez"@example.org'),
        ("a" * 64 + "@example.org", "a" * 64 + "@example.org"),
    ],
)
def test_addresses(world: World, given: str, kept: str) -> None:
    """International domains and local parts are addresses; each is kept in its normal form."""
    answer = world.accepted(destinations=[{"email": given}])
    assert answer["emails"][0]["email"] == kept


@pytest.mark.parametrize(
    "email",
    [
        *("", " ", "pedro", "@example.org", "pedro@", "pedro@@example.org", "a@b@example.org"),
        *("pedro@example", "pedro@localhost", "pedro@-example.org", "pedro@exa mple.org"),
        *("pedro.@example.org", ".pedro@example.org", "pe..dro@example.org", "pe dro@example.org"),
        *("Pedro <pedro@example.org>", "pedro@example.org,ana@example.org", "pedro@[127.0.0.1]"),
        *("a" * 65 + "@example.org", "a@" + "b" * 64 + ".org", "a@" + "b." * 130 + "org"),
        *("a@" + "ü" * 60 + ".example.org", "a@\u2024.example.org", "a@exa\u200bmple.org"),
        *("é" * 500_000, "a." * 1_000_000 + "@example.org", '"' + "\\a" * 100_000 + '"@x.org'),
        *(f"pe{bad}dro@example.org" for bad in CONTROLS + HALVES),
        *(f"pedro@example.org{bad}" for bad in CONTROLS + HALVES),
        '"pe\\\ndro"@example.org',
        *(None, 1, 1.5, True, [], {}, ["pedro@example.org"], {"email": "pedro@example.org"}),
    ],
)
def test_refuses_address(world: World, email: Any) -> None:
    """What is no address is refused wherever it stands, and each place is named."""
    body = a_body(
        destinations=[{"email": "ana@example.org"}, {"email": email}],
        replyTo={"email": email},
    )
    body["from"] = {"email": email}
    errors = errors_of(world.send(body))
    assert set(errors) == {"from.email", "destinations.1.email", "replyTo.email"}
    assert world.items() == []


def _headers(bad: str) -> dict[str, dict[str, Any]]:
    """Every place where a value becomes part of a header, with `bad` in it."""
    return {
        "subject": {"subject": f"te{bad}st"},
        "from.name": {"from": {"email": "a@example.com", "name": f"Fa{bad}cundo"}},
        "from.email": {"from": {"email": f"a{bad}@example.com"}},
        "replyTo.name": {"replyTo": {"email": "a@example.com", "name": bad}},
        "destinations.0.name": {"destinations": [{"email": "a@example.org", "name": f"{bad}A"}]},
        "headers.X-A": {"headers": {"X-A": f"a{bad}Bcc: eve@example.net"}},
        f"headers.X-A{bad}": {"headers": {f"X-A{bad}": "a"}},
    }


@pytest.mark.parametrize("place", range(len(_headers(""))))
@pytest.mark.parametrize("bad", CONTROLS + HALVES)
def test_nobody_smuggles_headers(world: World, bad: str, place: int) -> None:
    """A control character or half a character in a header value is refused, its field named."""
    field, changes = list(_headers(bad).items())[place]
    assert set(errors_of(world.send(a_body(**changes)))) == {field}
    assert world.items() == []
    assert world.queue.hints == []


NOT_TEXT: list[Any] = [None, 1, True, [], ["a"], {}, ""]

REFUSED: list[tuple[dict[str, Any], set[str]]] = [
    ({"subject": "a" * 999}, {"subject"}),
    *(({name: value}, {name}) for name in ("subject", "plainContent", "htmlContent")
      for value in NOT_TEXT),
    *(({name: half}, {name}) for name in ("plainContent", "htmlContent") for half in HALVES),
    ({"to": "pedro@example.org"}, {"to"}),
    ({"cc": [], "bcc": []}, {"cc", "bcc"}),
    ({"Subject": "test"}, {"Subject"}),
    ({"plain": "a", "sender": {}}, {"plain", "sender"}),
    ({"a.b": 1, "": 2, "ü": 3, "\ud800": 4}, {"a.b", "", "ü", "\ud800"}),
    # Addresses
    *(({"from": value}, {"from"}) for value in (None, 1, "facundo@example.com", [], ["a"])),
    ({"from": {}}, {"from.email"}),
    ({"from": {"email": "a@example.com", "name": ""}}, {"from.name"}),
    ({"from": {"email": "a@example.com", "name": None}}, {"from.name"}),
    ({"from": {"email": "a@example.com", "name": "a" * 999}}, {"from.name"}),
    ({"from": {"email": "a@example.com", "nick": "A"}}, {"from.nick"}),
    ({"from": {"email": "a@example.com", "value": 1, "key": 2}}, {"from.value", "from.key"}),
    *(({"replyTo": value}, {"replyTo"}) for value in (None, 1, "a@example.com", [])),
    ({"replyTo": {"name": "A"}}, {"replyTo.email"}),
    # Destinations
    *(({"destinations": value}, {"destinations"}) for value in
      (None, [], {}, "pedro@example.org", 1, [{"email": "a@example.org"}] * 1001, [{}] * 100_000)),
    ({"destinations": ["pedro@example.org", None]}, {"destinations.0", "destinations.1"}),
    (
        {"destinations": [{"email": "a@example.org"}] * 3 + [{"email": "x"}, {"name": "A"}]},
        {"destinations.3.email", "destinations.4.email"},
    ),
    ({"destinations": [{"email": "a@example.org", "value": 1}]}, {"destinations.0.value"}),
    # Headers
    *(({"headers": value}, {"headers"}) for value in (None, [], "X-A: a", 1)),
    *(({"headers": {name: "a"}}, {f"headers.{name}"}) for name in (
        *("", "X", "X-", "List-", "Subject", "Bcc", "Reply-To", "XA", " X-A", "X-A ", "X-A:"),
        *("X A", "X-\u017f", "Li\u017ft-Id", "X-\u212a", "X-é", "Received", "value", "key"),
    )),
    *(({"headers": {"X-A": value}}, {"headers.X-A"}) for value in NOT_TEXT),
    ({"headers": {"X-A": "a" * 994}}, {"headers.X-A"}),
    ({"headers": {"X-" + "a" * 996: "a"}}, {"headers.X-" + "a" * 996}),
    ({"headers": {"X-A": "a", "x-a": "b"}}, {"headers.x-a"}),
    # Providers
    *(({"providers": value}, {"providers"}) for value in (
        *([], None, "ses", {}, ["pigeon"], ["ses", "pigeon"], ["ses", "ses"], ["SES"], ["\ud800"]),
    )),
    ({"providers": [1]}, {"providers.0"}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fields"), REFUSED)
def test_refuses(world: World, changes: dict[str, Any], fields: set[str]) -> None:
    """422 names each bad field by its path, and no other; nothing is stored."""
    response = world.send({**a_body(), **changes})
    assert set(errors_of(response)) == fields
    assert world.items() == []
    assert world.queue.hints == []


@pytest.mark.parametrize(
    ("missing", "fields"),
    [
        (["from"], {"from"}),
        (["destinations"], {"destinations"}),
        (["subject"], {"subject"}),
        (["plainContent", "htmlContent"], {"plainContent"}),
        (list(a_body()), {"from", "destinations", "subject", "plainContent"}),
    ],
)
def test_required(world: World, missing: list[str], fields: set[str]) -> None:
    """Every field that is missing is named."""
    assert set(errors_of(world.send(a_body(**dict.fromkeys(missing))))) == fields


def test_names_only_a_few(world: World) -> None:
    """With hundreds of bad fields the text names some of them, and `errors` all."""
    response = world.send(a_body(destinations=[{}] * 500))
    assert len(errors_of(response)) == 500
    assert "destinations.0.email" in problem_of(response, 422)["detail"]
    assert len(problem_of(response, 422)["detail"]) < 500


def test_providers_are_the_configured_ones(make_world: Callable[..., World]) -> None:
    """A batch can choose only from the configured chain, and has it unless it chooses."""
    world = make_world(EMAIL_PROVIDERS="ses,sendgrid")
    assert set(errors_of(world.send(a_body(providers=["mailgun"])))) == {"providers"}
    [email] = world.store.emails(world.accepted()["id"])
    assert email.chain == ("ses", "sendgrid")


@pytest.mark.parametrize("total", [1, 98, 99, 1000])
def test_sizes(world: World, total: int) -> None:
    """Up to 1,000 recipients: each is stored and due, answered in order, and has a hint."""
    addresses = [f"pedro{index}@example.org" for index in range(total)]
    answer = world.accepted(destinations=[{"email": address} for address in addresses])
    ids = [email["id"] for email in answer["emails"]]
    assert len(set(ids)) == total
    assert [email["email"] for email in answer["emails"]] == addresses
    assert [email.to.email for email in world.store.emails(answer["id"])] == addresses
    assert [str(hint.email_id) for hint in world.queue.hints] == ids
    assert sum("due_at" in item for item in world.items()) == total


def test_a_name_for_each(world: World) -> None:
    """The same address twice is two emails."""
    answer = world.accepted(destinations=[{"email": "a@example.org"}] * 2)
    assert len({email["id"] for email in answer["emails"]}) == 2


def test_no_queue(world: World) -> None:
    """Without SQS the answer is 202 all the same: every email is due, and the sweep sends it."""
    world.queue.down = True
    answer = world.accepted(destinations=[{"email": f"a{i}@example.org"} for i in range(120)])
    assert world.queue.hints == []
    assert world.due() == {email["id"] for email in answer["emails"]}
    assert world.due(at=1) == set()


# Bodies


def _utf16() -> bytes:
    return json.dumps(a_body()).encode("utf-16")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"{}{}", b"from=a&subject=b", b"'", b'{"a": 1,}', b"\xff\xfe", b"\0"),
        *(b'{"subject": "\xff"}', b'{"subject": "a\nb"}', b"// a\n{}", b"undefined", b"<a/>"),
        *(b'{"subject": NaN}', b'{"subject": Infinity}', b'{"subject": -Infinity}'),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000),
        *(b"9" * 5000, b'{"subject": ' + b"9" * 5000 + b"}"),
        *(_utf16(), json.dumps(a_body()).encode("utf-32"), gzip.compress(b"{}", mtime=0)),
        json.dumps(a_body(subject="ü"), ensure_ascii=False).encode("latin-1"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_not_json(world: World, body: bytes, headers: dict[str, str]) -> None:
    """A body that is not JSON in UTF-8 is a 400."""
    problem_of(world.send(body, headers=headers), 400)
    assert world.items() == []


@pytest.mark.parametrize("where", ["{}", '{{"destinations": [{}]}}', '{{"headers": {}}}'])
def test_field_twice(world: World, where: str) -> None:
    """Of a field that is given twice nobody can say which is meant: a 400 that names it."""
    body = where.format('{"subject": "a", "subject": "b"}')
    assert "subject" in problem_of(world.send(body), 400)["detail"]


@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"', "true", "1e999", "[{}]", "9" * 400])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_not_an_object(world: World, body: str, headers: dict[str, str]) -> None:
    assert set(errors_of(world.send(body, headers=headers))) == {"body"}


@pytest.mark.parametrize("depth", range(900, 1000, 9))
def test_deep_nesting(world: World, depth: int) -> None:
    """However deep a body is, it is refused properly, an Idempotency-Key or not."""
    body = json.dumps(a_body())[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    for headers in ({}, {"Idempotency-Key": "once"}):
        response = world.send(body, headers=headers)
        problem_of(response, 400 if response.status_code == 400 else 422)


def test_numbers_are_no_text(world: World) -> None:
    """Huge numbers that JSON allows are refused where a text belongs."""
    body = json.dumps(a_body()).replace('"test"', "1e999").replace('"Pedro"', "9" * 4000)
    fields = {"subject", "plainContent", "destinations.0.name"}
    assert set(errors_of(world.send(body))) == fields


def test_byte_order_mark(world: World) -> None:
    """A byte order mark in front, as some editors put it there, does no harm."""
    assert world.send(b"\xef\xbb\xbf" + json.dumps(a_body()).encode()).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json", "application/json; charset=utf-8", "APPLICATION/JSON"),
        *("application/json;charset=UTF-8", "application/problem+json", "application/vnd.a+json"),
    ],
)
def test_json_by_its_type(world: World, content_type: str) -> None:
    assert world.send(content_type=content_type).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "json"),
        *("multipart/form-data; boundary=a", "application/xml", "application/jsonx", ";", "é"),
    ],
)
def test_not_json_by_its_type(world: World, content_type: str | None) -> None:
    problem_of(world.send(content_type=content_type), 415)
    assert world.items() == []


def test_body_over_the_limit(world: World) -> None:
    """25 MB are read, a byte more is not."""
    start, end = b'{"plainContent": "', b'"}'
    text = b"a" * (25_000_000 - len(start) - len(end))
    assert "plainContent" not in errors_of(world.send(start + text + end))
    problem = problem_of(world.send(start + text + b"a" + end), 413)
    assert "25 MB" in problem["detail"]
    assert world.items() == []


@pytest.mark.parametrize(("size", "status"), [(24_000_000, 422), (25_000_001, 413)])
def test_body_without_a_length(world: World, size: int, status: int) -> None:
    """A body that comes in chunks, its length unknown, may have no more."""
    body = b'{"plainContent": "' + b"a" * size
    response = world.call(
        "POST",
        "/emails/send",
        input_stream=io.BytesIO(body[: size - 2] + b'"}'),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    problem_of(response, status)


# Content that is too large for DynamoDB


@pytest.fixture(scope="module")
def large() -> str:
    """Text that has over 350 KB compressed."""
    return random.Random(1).randbytes(450_000).hex()


def test_large_content_without_bucket(world: World, large: str) -> None:
    """Without a bucket it is too large, and nothing is stored."""
    problem = problem_of(world.send(a_body(plainContent=large * 2)), 413)
    assert "MAILRELAY_BUCKET" in problem["detail"]
    assert world.items() == []


def test_large_content_that_compresses(world: World) -> None:
    """What counts is the compressed size."""
    world.accepted(plainContent="spam and eggs " * 100_000)


def test_large_content_with_bucket(make_world: Callable[..., World], large: str) -> None:
    """With a bucket it is accepted, lies there, and can be read for sending."""
    world = make_world(MAILRELAY_BUCKET=BUCKET)
    answer = world.accepted(plainContent=large, htmlContent=None)
    [stored] = boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert stored["Key"] == answer["id"]
    _, content = world.store.batch_with_content(answer["id"]) or pytest.fail("not stored")
    assert content == Content(plain=large)
    assert world.due(FUTURE) == {answer["emails"][0]["id"]}


def test_bucket_that_is_not_there(make_world: Callable[..., World], large: str) -> None:
    """A bucket that refuses is a store that cannot be reached: 503, and nothing is stored."""
    world = make_world(MAILRELAY_BUCKET="no-such-bucket")
    response = world.send(a_body(plainContent=large))
    problem_of(response, 503)
    assert "Retry-After" in response.headers
    assert world.items() == []
