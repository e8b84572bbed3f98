"""Signing in to the console, and for how long; and whose form it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from mailrelay import clock, web
from mailrelay.settings import load
from mailrelay.web.console import session
from mailrelay.web.console.secret import Secret
from tests.support.console import HTML, Browser, text_of, token_of
from tests.unit import test_web_app
from tests.unit.test_web_app import KEY, OTHER_KEY, VARIABLES, World

cloud = test_web_app.cloud
make_world = test_web_app.make_world
shared_world = test_web_app.shared_world
world = test_web_app.world

MakeWorld = Callable[..., World]

PAGES = ["/", "/send", "/batches", "/batches/01ARZ3NDEKTSV4RRFFQ69G5FAV/0"]


# Signing in


@pytest.mark.parametrize("path", PAGES)
def test_every_page_asks_who_it_is_and_leads_back(world: World, path: str) -> None:
    browser = Browser(world.app)
    asked = browser.get(path)
    assert (asked.status_code, asked.location) == (303, f"/sign-in?next={path}")

    back = browser.sign_in(KEY, asked.location)
    assert (back.status_code, back.location) == (303, path)
    assert browser.get("/").status_code == 200
    assert "shop" in text_of(browser.page)


@pytest.mark.parametrize("path", ["/send", "/sign-out", "/send/preview", "/send/recipients"])
def test_every_form_asks_who_it_is(world: World, path: str) -> None:
    browser = Browser(world.app)
    browser.get("/sign-in")
    assert browser.post(path).status_code in (303, 401)
    assert world.items() == [item for item in world.items() if item["pk"]["S"] == "S#console"]


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/\n/evil"]
)
def test_signing_in_leads_nobody_elsewhere(world: World, elsewhere: str) -> None:
    browser = Browser(world.app)
    browser.get("/sign-in")
    response = browser.client.post(
        "/sign-in",
        query_string={"next": elsewhere},
        data={"key": KEY, "csrf_token": token_of(browser.page)},
    )
    assert response.location == "/"


@pytest.mark.parametrize(
    ("key", "said"),
    [("no-such-key", "This API key is not known."), ("", "Give an API key.")],
)
def test_a_wrong_key(world: World, key: str, said: str) -> None:
    browser = Browser(world.app)
    response = browser.sign_in(key)
    assert response.status_code == 401
    assert said in text_of(response.text)
    assert browser.get("/").status_code == 303


def test_a_key_is_neither_kept_nor_logged(world: World) -> None:
    """Not in the cookie, which its owner can read, nor in a line of the log."""
    browser = Browser(world.app)
    with capture_logs() as lines:
        browser.sign_in(KEY)
        browser.get("/")
    cookie = browser.client.get_cookie("mailrelay_session")
    assert cookie is not None
    known = world.app.session_interface.get_signing_serializer(world.app).loads(cookie.value)
    (digest, _), *_ = world.settings.api_keys.items()
    assert known["name"] == "shop"
    assert KEY not in repr(known) + repr(lines)
    assert digest not in repr(known)


def test_the_cookie(world: World) -> None:
    """Scripts do not see it, other sites do not send it with a form, and TLS keeps it to itself."""
    for scheme, secure in (("http", False), ("https", True)):
        browser = Browser(world.app)
        base_url = f"{scheme}://relay.example.com"
        cookie = browser.get("/sign-in", base_url=base_url).headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert ("Secure" in cookie) is secure


def test_signing_out(world: World) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    browser.get("/")
    assert browser.post("/sign-out").status_code == 303
    assert browser.get("/").location == "/sign-in?next=/"


def test_attempts_with_wrong_keys_are_limited_together(make_world: MakeWorld) -> None:
    """And lock nobody out: who has a key is let in as often as the key may ask."""
    world = make_world(MAILRELAY_REQUEST_LIMIT="2/h")
    browser = Browser(world.app)
    statuses = [browser.sign_in("wrong").status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert browser.sign_in(KEY).status_code == 303
    assert browser.get("/").status_code == 200
    late = browser.get("/")
    assert late.status_code == 429
    assert int(late.headers["Retry-After"]) > 0


# Its end


def test_a_session_ends_by_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    begun = clock.now()
    monkeypatch.setattr(clock, "now", lambda: begun + (session.LIFETIME - 60) * 1000)
    assert browser.get("/").status_code == 200
    monkeypatch.setattr(clock, "now", lambda: begun + (session.LIFETIME + 1) * 1000)
    gone = browser.get("/send")
    assert (gone.status_code, gone.location) == (303, "/sign-in?expired=1&next=/send")
    assert "Your session has ended" in text_of(browser.get(gone.location).text)


@pytest.mark.parametrize(
    "keys", [f"blog:{OTHER_KEY}", "shop:another-key-of-that-name", f"other:{KEY}"]
)
def test_a_session_ends_with_its_key(make_world: MakeWorld, keys: str) -> None:
    """When it is removed, replaced or renamed: a new web process knows the cookie, and not the key."""
    before = make_world()
    browser = Browser(before.app)
    browser.sign_in(KEY)
    cookie = browser.client.get_cookie("mailrelay_session")
    assert cookie is not None

    after = Browser(make_world(MAILRELAY_API_KEYS=keys).app)
    after.client.set_cookie("mailrelay_session", cookie.value)
    assert after.get("/").status_code == 303
    same = Browser(make_world().app)
    same.client.set_cookie("mailrelay_session", cookie.value)
    assert same.get("/").status_code == 200


def test_a_part_of_a_page_sends_the_whole_page_to_sign_in(world: World) -> None:
    """htmx would put the sign-in page where a table was."""
    shown = "http://relay.example.com/batches/x?page=2"
    headers = {"HX-Request": "true", "HX-Current-URL": shown}
    response = Browser(world.app).get("/batches/x", headers=headers)
    assert response.status_code == 401
    assert response.headers["HX-Redirect"] == "/sign-in?next=/batches/x?page%3D2"


@pytest.mark.parametrize("cookie", ["", "forged", "e30.aaaa.bbbb"])
def test_a_forged_cookie_is_none(world: World, cookie: str) -> None:
    browser = Browser(world.app)
    browser.client.set_cookie("mailrelay_session", cookie)
    assert browser.get("/").status_code == 303


# The secret


def test_all_processes_have_one_secret_that_nobody_configures(world: World) -> None:
    first, second = (Secret(world.store.table) for _ in range(2))
    assert len(first()) >= 32
    assert first() == second() == Secret(world.store.table)()
    hashes = {*world.settings.api_keys}
    assert not any(part in first() for part in hashes)


def test_of_two_first_processes_one_secret_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Secret(world.store.table)
    table = world.store.table
    get, looks = table.get, []

    def get_too_early(*args: object) -> object:
        looks.append(1)
        return None if len(looks) == 1 else get(*args)  # type: ignore[arg-type]

    early = Secret(table)()
    monkeypatch.setattr(table, "get", get_too_early)
    assert late() == early


def test_the_api_needs_no_secret(make_world: MakeWorld) -> None:
    """Nor does it give anybody a cookie, whatever cookie it is sent."""
    world = make_world()
    world.client.set_cookie("mailrelay_session", "some")
    response = world.send()
    assert response.status_code == 202
    assert "Set-Cookie" not in response.headers
    assert web.create_app(load(VARIABLES), world.queue).secret_key is None


# Whose form it was


@pytest.mark.parametrize("token", [None, "", "forged"])
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/send", "/send/preview"])
def test_a_form_of_another_site_does_nothing(world: World, path: str, token: str | None) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    browser.get("/send")
    before = world.items()
    assert browser.post(path, csrf_token=token, key=KEY).status_code == 400
    assert world.items() == before
    assert browser.get("/").status_code == 200


def test_a_token_of_another_session_does_nothing(world: World) -> None:
    mine, theirs = Browser(world.app), Browser(world.app)
    for browser in (mine, theirs):
        browser.sign_in(KEY)
        browser.get("/send")
    mine.page = theirs.page
    assert mine.post("/sign-out").status_code == 400


def test_htmx_says_the_token_in_a_header(world: World) -> None:
    browser = Browser(world.app)
    browser.sign_in(KEY)
    browser.get("/send")
    token = browser.page.split('"X-CSRFToken": "')[1].split('"')[0]
    response = browser.client.post("/sign-out", headers={"X-CSRFToken": token})
    assert response.status_code == 303


# Without a store


def test_a_store_that_is_away_is_said_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, and no traceback; signed in or not, with the secret known or not."""

    def away(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError", "Message": "no"}}, "GetItem")

    signed_in = Browser(world.app)
    signed_in.sign_in(KEY)
    cookie = signed_in.client.get_cookie("mailrelay_session")
    assert cookie is not None
    fresh = World()
    stranger = Browser(fresh.app)
    stranger.client.set_cookie("mailrelay_session", cookie.value)
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", away)

    for browser, path in (
        (signed_in, "/batches/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        (stranger, "/"),
        (Browser(World().app), "/sign-in"),
    ):
        with capture_logs() as lines:
            response = browser.get(path)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        assert "try again" in text_of(response.text)
        assert "Traceback" not in response.text
        assert "the store cannot be reached" in [line["event"] for line in lines]


def test_a_browser_that_is_no_browser(world: World) -> None:
    """What takes anything gets a problem where there is nothing, a browser a page."""
    assert world.get("/nowhere").content_type == "application/problem+json"
    page = world.client.get("/nowhere", headers=HTML)
    assert (page.status_code, page.content_type) == (404, "text/html; charset=utf-8")
    assert "There is nothing at this address." in text_of(page.text)
