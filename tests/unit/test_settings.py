"""The environment: what each variable takes, and how it is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from mailrelay.settings import RequestLimit, Settings, SettingsError, load

DEFAULTS: dict[str, Any] = {
    "providers": ("mailgun", "ses", "sendgrid"),
    "api_keys": {},
    "short_api_keys": (),
    "senders": {},
    "request_limit": None,
    "mailgun_api_key": None,
    "mailgun_domain": None,
    "mailgun_base_url": "https://api.mailgun.net",
    "sendgrid_api_key": None,
    "sendgrid_base_url": "https://api.sendgrid.com",
    "ses_region": None,
    "ses_endpoint_url": None,
    "aws_region": None,
    "aws_endpoint_url": None,
    "table": "mailrelay",
    "bucket": None,
    "queue_prefix": "mailrelay-",
    "message_ttl": 60,
    "lease": 30,
    "sweep_interval": 10,
    "retry_schedule": (60, 300, 1800, 7200, 28800, 86400),
    "avoid_duplicates": False,
    "events": True,
    "provider_timeout": 10,
    "provider_pause": 10,
    "rates": {},
    "metrics_address": "127.0.0.1",
    "log_format": "auto",
    "metrics_port": 8001,
    "retention_days": 30,
    "port": 8000,
    "flower_port": 5555,
    "sandbox_port": 8025,
    "aws_port": 4566,
    "sandbox_url": None,
    "flower_url": None,
}

GOOD: list[tuple[str, str, str, Any]] = [
    ("EMAIL_PROVIDERS", "ses", "providers", ("ses",)),
    ("EMAIL_PROVIDERS", " sendgrid , mailgun ", "providers", ("sendgrid", "mailgun")),
    ("MAILRELAY_REQUEST_LIMIT", "100/s", "request_limit", RequestLimit(100, 1)),
    ("MAILRELAY_REQUEST_LIMIT", "1/h", "request_limit", RequestLimit(1, 3600)),
    ("MAILRELAY_REQUEST_LIMIT", "9999999/m", "request_limit", RequestLimit(9999999, 60)),
    ("MAILGUN_API_KEY", "abc-123", "mailgun_api_key", "abc-123"),
    ("MAILGUN_DOMAIN", "mg.example.com", "mailgun_domain", "mg.example.com"),
    ("MAILGUN_BASE_URL", "http://[::1]:8025/mailgun", "mailgun_base_url", None),
    ("SENDGRID_API_KEY", "SG.x_y-z", "sendgrid_api_key", "SG.x_y-z"),
    ("SENDGRID_BASE_URL", "http://127.0.0.1:8025/sendgrid", "sendgrid_base_url", None),
    ("SES_REGION", "eu-central-1", "ses_region", "eu-central-1"),
    ("SES_ENDPOINT_URL", "https://ses.example.com", "ses_endpoint_url", None),
    ("AWS_REGION", "eu-west-1", "aws_region", "eu-west-1"),
    ("AWS_ENDPOINT_URL", "http://localhost:4566", "aws_endpoint_url", None),
    ("MAILRELAY_TABLE", "My.table_2-x", "table", "My.table_2-x"),
    ("MAILRELAY_BUCKET", "my-bucket.2", "bucket", "my-bucket.2"),
    ("MAILRELAY_QUEUE_PREFIX", "Team_a-", "queue_prefix", "Team_a-"),
    ("MAILRELAY_MESSAGE_TTL", "60", "message_ttl", 60),
    ("MAILRELAY_MESSAGE_TTL", "1209600", "message_ttl", 1_209_600),
    ("MAILRELAY_LEASE", "14.001", "lease", 14.001),
    ("MAILRELAY_SWEEP_INTERVAL", "0.25", "sweep_interval", 0.25),
    ("MAILRELAY_PROVIDER_PAUSE", "0.5", "provider_pause", 0.5),
    ("MAILRELAY_RATE_MAILGUN", "200/s", "rates", {"mailgun": 200}),
    ("MAILRELAY_RATE_SES", "90/m", "rates", {"ses": 1.5}),
    ("MAILRELAY_RATE_OTHER_ONE", "43200/d", "rates", {"other_one": 0.5}),
    ("MAILRELAY_RATE_SENDGRID", " ", "rates", {}),
    ("MAILRELAY_RETRY_SCHEDULE", "0.5", "retry_schedule", (0.5,)),
    ("MAILRELAY_RETRY_SCHEDULE", "1, 2.5,3", "retry_schedule", (1, 2.5, 3)),
    ("MAILRELAY_DUPLICATES", "allow", "avoid_duplicates", False),
    ("MAILRELAY_DUPLICATES", "avoid", "avoid_duplicates", True),
    ("MAILRELAY_EVENTS", "on", "events", True),
    ("MAILRELAY_EVENTS", "off", "events", False),
    ("MAILRELAY_PROVIDER_TIMEOUT", "0.2", "provider_timeout", 0.2),
    ("MAILRELAY_CONCURRENCY", "1", "concurrency", 1),
    ("MAILRELAY_CONCURRENCY", "1000", "concurrency", 1000),
    ("MAILRELAY_LOG_FORMAT", "auto", "log_format", "auto"),
    ("MAILRELAY_LOG_FORMAT", "json", "log_format", "json"),
    ("MAILRELAY_LOG_FORMAT", "text", "log_format", "text"),
    ("MAILRELAY_METRICS_ADDRESS", "::", "metrics_address", "::"),
    ("MAILRELAY_METRICS_PORT", "0", "metrics_port", 0),
    ("MAILRELAY_METRICS_PORT", "65535", "metrics_port", 65_535),
    ("MAILRELAY_RETENTION_DAYS", "1.5", "retention_days", 1.5),
    ("PORT", "1", "port", 1),
    ("PORT", "65535", "port", 65_535),
    ("FLOWER_PORT", "5556", "flower_port", 5556),
    ("SANDBOX_PORT", "8026", "sandbox_port", 8026),
    ("AWS_PORT", "4567", "aws_port", 4567),
    ("MAILRELAY_SANDBOX_URL", "http://127.0.0.1:8025", "sandbox_url", "http://127.0.0.1:8025"),
    ("MAILRELAY_FLOWER_URL", "https://flower.example", "flower_url", "https://flower.example"),
]

BAD_URLS = (
    *(
        "ftp://example.com",
        "example.com",
        "https://",
        "http://:80",
        "http://[::1",
        "//example.com",
    ),
    *("http://example.com:99999", "http://example.com:x", "http://example.com:0"),
    *("https://example.com/a b", "https://example.com/?a=1", "https://example.com/#a"),
    *("https://user:secret@example.com", "https://example.com\n/x"),
)
NOT_SECONDS = ("soon", "0", "-1", "nan", "inf", "-inf", "1e999", "1e300", "10 s", "1,5", "86400.5")
NOT_PORTS = ("0", "-1", "65536", "8000.5", "http", "1" * 5000)
WHAT_TAKES_SECONDS = r"must be a number above 0, up to 86400$"

BAD: list[tuple[str, tuple[str, ...], str]] = [
    (
        "EMAIL_PROVIDERS",
        (",", "mailgun,", "mailgun ses", "Mailgun", "mail-gun"),
        "takes names of providers, comma-separated",
    ),
    ("EMAIL_PROVIDERS", ("ses,mailgun,ses",), "names a provider twice"),
    (
        "MAILRELAY_REQUEST_LIMIT",
        (
            "100",
            "0/second",
            "-1/second",
            "1.5/second",
            "100/day",
            "10 / second",
            "1/second;2/hour",
        ),
        "takes a whole number of requests a second, minute, hour or day",
    ),
    (
        "MAILRELAY_SENDERS",
        (
            *("shop", "shop:", ":", "shop:example.com", "shop:@", "shop:@a b", ","),
            *("shop:@example.com,", "shop:a@b@example.com", "shop:@example.com|@example.org"),
        ),
        "takes NAME:@DOMAIN and NAME:ADDRESS, comma-separated",
    ),
    *(
        (name, BAD_URLS, "must be an http:// or https:// address")
        for name in (
            "MAILGUN_BASE_URL",
            "SENDGRID_BASE_URL",
            "SES_ENDPOINT_URL",
            "AWS_ENDPOINT_URL",
        )
    ),
    *(
        (name, ("a b", "a\nb", "schlüssel", "a\x00"), "must be made of visible ASCII")
        for name in (
            "MAILGUN_API_KEY",
            "SENDGRID_API_KEY",
        )
    ),
    ("MAILGUN_DOMAIN", ("a b", "mg.example.com/x", "https://mg.example.com"), "a domain name"),
    *(
        (name, ("EU", "eu_west_1", "eu west", "a" * 64), "the name of a region, such as")
        for name in (
            "SES_REGION",
            "AWS_REGION",
        )
    ),
    ("MAILRELAY_TABLE", ("ab", "a" * 256, "my table", "tisch-ä"), "must have 3 to 255 letters"),
    ("MAILRELAY_BUCKET", ("ab", "a" * 64, "Bucket", "-abc", "abc."), "the name of an S3 bucket"),
    ("MAILRELAY_QUEUE_PREFIX", ("a" * 51, "a.b", "a b"), "must have 1 to 50 letters"),
    (
        "MAILRELAY_MESSAGE_TTL",
        ("59", "1209601", "60.5", "1e3", "-60", "minute", "9" * 5000),
        "must be a whole number from 60 to 1209600",
    ),
    *(
        (name, NOT_SECONDS, WHAT_TAKES_SECONDS)
        for name in (
            "MAILRELAY_LEASE",
            "MAILRELAY_SWEEP_INTERVAL",
            "MAILRELAY_PROVIDER_TIMEOUT",
        )
    ),
    (
        "MAILRELAY_RETRY_SCHEDULE",
        ("0", "60,-1", "60,,300", "60,", ",", "nan", "60,inf", "a minute"),
        "takes seconds, comma-separated, each above 0",
    ),
    ("MAILRELAY_DUPLICATES", ("yes", "Allow", "allow avoid"), "must be allow or avoid"),
    ("MAILRELAY_EVENTS", ("yes", "Off", "0", "on off"), "must be on or off"),
    (
        "MAILRELAY_CONCURRENCY",
        ("0", "1001", "2.5", "many"),
        "must be a whole number from 1 to 1000",
    ),
    ("MAILRELAY_LOG_FORMAT", ("JSON", "logfmt", "json text"), "must be auto, json or text"),
    ("MAILRELAY_METRICS_ADDRESS", ("localhost", "127.0.0.1:8001", "off"), "must be an IP address"),
    (
        "MAILRELAY_METRICS_PORT",
        ("-1", "65536", "off", "8001.5"),
        "must be a whole number from 0 to 65535",
    ),
    (
        "MAILRELAY_RETENTION_DAYS",
        ("0", "-1", "nan", "1e300", "36501", "a month"),
        "must be a number above 0, up to 36500$",
    ),
    *(
        (name, NOT_PORTS, "must be a whole number from 1 to 65535")
        for name in (
            "PORT",
            "FLOWER_PORT",
            "SANDBOX_PORT",
            "AWS_PORT",
        )
    ),
]

MakeSettings = Callable[..., Settings]
VARIABLES = sorted({name for name, *_ in GOOD} | {"MAILRELAY_API_KEYS", "MAILRELAY_SENDERS"})
KEY_DIGEST = hashlib.sha256(b"k3y-._~+/=").hexdigest()


def test_nothing_has_to_be_set() -> None:
    """Without a single variable the settings are the contract's defaults."""
    settings = dataclasses.asdict(load({}))
    assert 1 <= settings.pop("concurrency") <= 1000
    assert settings == DEFAULTS


@pytest.mark.parametrize(("variable", "value", "field", "read"), GOOD)
def test_takes(variable: str, value: str, field: str, read: Any) -> None:
    """A good value is read, fractions of seconds included."""
    assert getattr(load({variable: value}), field) == (value if read is None else read)


@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [(variable, value, takes) for variable, values, takes in BAD for value in values],
)
def test_refuses(variable: str, value: str, takes: str) -> None:
    """A value that cannot work is refused in one line: the variable, then what it takes."""
    with pytest.raises(SettingsError) as caught:
        load({variable: value})
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable}: ")
    assert re.search(takes, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("nothing", ["", " ", "\t\n"])
def test_empty_is_unset(variable: str, nothing: str) -> None:
    """A variable that is set to nothing counts as not set."""
    assert load({variable: nothing}) == load({})


def test_spaces_around_a_value_do_not_count() -> None:
    assert load({"MAILRELAY_TABLE": " mail \n"}).table == "mail"


def test_other_variables_do_not_matter() -> None:
    assert load({"HOME": "/root", "MAILRELAY_FUTURE": "?"}) == load({})


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("shop:k3y-._~+/=", {KEY_DIGEST: "shop"}),
        (f"shop:sha256:{KEY_DIGEST}", {KEY_DIGEST: "shop"}),
        (f"shop:sha256:{KEY_DIGEST.upper()}", {KEY_DIGEST: "shop"}),
        ("k3y-._~+/=", {KEY_DIGEST: f"key-{KEY_DIGEST[:8]}"}),
    ],
)
def test_api_key(value: str, keys: dict[str, str]) -> None:
    """KEY, NAME:KEY and NAME:sha256:HEX all mean the same key; only its hash is kept."""
    assert load({"MAILRELAY_API_KEYS": value}).api_keys == keys


def test_several_api_keys() -> None:
    keys = load({"MAILRELAY_API_KEYS": f"a:one, two ,c:sha256:{KEY_DIGEST}"}).api_keys
    two = hashlib.sha256(b"two").hexdigest()
    assert list(keys.values()) == ["a", f"key-{two[:8]}", "c"]


def test_short_api_keys() -> None:
    """Keys of fewer than 20 characters are named; how long a hashed one is, nobody knows."""
    long = "a-key-of-20-characte"
    settings = load({"MAILRELAY_API_KEYS": f"a:{long},b:{long[1:]},c:sha256:{KEY_DIGEST},x"})
    digest = hashlib.sha256(b"x").hexdigest()
    assert settings.short_api_keys == ("b", f"key-{digest[:8]}")


def test_senders() -> None:
    """A key's name stands before each of its senders; all are kept in one form."""
    senders = "shop:@BÜCHER.example, blog:Offers@Example.org,shop:@xn--bcher-kva.example,shop:a@b.example"
    settings = load({"MAILRELAY_API_KEYS": "shop:1,blog:2,free:3", "MAILRELAY_SENDERS": senders})
    assert settings.senders == {
        "shop": {"@bücher.example", "a@b.example"},
        "blog": {"Offers@example.org"},
    }


@pytest.mark.parametrize(
    ("keys", "there"), [("shop:1,blog:2", "blog, shop"), ("", "none"), ("hush-hush", "key-")]
)
def test_refuses_senders_of_no_key(keys: str, there: str) -> None:
    """A name that no key has is a mistake; it is not repeated, as it may be the key itself."""
    with pytest.raises(
        SettingsError, match=rf"^MAILRELAY_SENDERS: has a name .* {there}"
    ) as caught:
        load({"MAILRELAY_API_KEYS": keys, "MAILRELAY_SENDERS": "hush-hush:@example.com"})
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        *("a b", "schlüssel", "name:", "name:a b", "a name:key", "n" * 65 + ":key", ",", "key,"),
        *("name::key", ":key", "::key", "name:sha256:", "name:sha256:abc", "name:md5:key"),
        *(f"name:sha256:{KEY_DIGEST}0", f"name:sha256:{'g' * 64}", f"name:SHA256:{KEY_DIGEST}"),
        # Whoever writes this has a hash, and would have it taken for the key itself.
        f"sha256:{KEY_DIGEST}",
    ],
)
def test_refuses_api_key(value: str) -> None:
    """What is none of the three forms is refused, without showing the key."""
    with pytest.raises(SettingsError, match=r"^MAILRELAY_API_KEYS: takes keys, comma-") as caught:
        load({"MAILRELAY_API_KEYS": value})
    assert KEY_DIGEST not in str(caught.value)


@pytest.mark.parametrize("value", ["a:one,a:two", "a:one,b:one", "one,one"])
def test_api_keys_are_distinct(value: str) -> None:
    """One name for two keys, or two names for one, would make the owner of a batch unclear."""
    with pytest.raises(SettingsError, match=r"^MAILRELAY_API_KEYS: has the same name or"):
        load({"MAILRELAY_API_KEYS": value})


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"MAILRELAY_LEASE": "13.9"}, ("MAILRELAY_LEASE", "MAILRELAY_PROVIDER_TIMEOUT=10")),
        (
            {"MAILRELAY_PROVIDER_TIMEOUT": "27"},
            ("MAILRELAY_LEASE", "30", "MAILRELAY_PROVIDER_TIMEOUT=27"),
        ),
        (
            {"MAILRELAY_RETENTION_DAYS": "1"},
            ("MAILRELAY_RETENTION_DAYS", "1 ", "MAILRELAY_RETRY_SCHEDULE"),
        ),
        (
            {"MAILRELAY_RETENTION_DAYS": "8", "MAILRELAY_SWEEP_INTERVAL": "86400"},
            ("MAILRELAY_RETENTION_DAYS", "8 ", "MAILRELAY_SWEEP_INTERVAL=86400"),
        ),
        (
            {
                "MAILRELAY_PROVIDER_TIMEOUT": "36000",
                "MAILRELAY_LEASE": "40000",
                "MAILRELAY_RETENTION_DAYS": "8",
            },
            ("MAILRELAY_RETENTION_DAYS", "8 ", "MAILRELAY_PROVIDER_TIMEOUT=36000"),
        ),
        (
            {
                "EMAIL_PROVIDERS": "a,b,c,d,e",
                "MAILRELAY_RETRY_SCHEDULE": ",".join(["1"] * 100),
            },
            ("MAILRELAY_RETRY_SCHEDULE", "100 delays", "5 providers of EMAIL_PROVIDERS", "505"),
        ),
        (
            {"MAILRELAY_RETRY_SCHEDULE": "2592000"},
            ("MAILRELAY_RETENTION_DAYS", "30 ", "MAILRELAY_RETRY_SCHEDULE"),
        ),
        ({"MAILRELAY_RETRY_SCHEDULE": "1e308,1e308"}, ("MAILRELAY_RETENTION_DAYS",)),
    ],
)
def test_values_that_break_a_promise_together(
    variables: dict[str, str], names: tuple[str, ...]
) -> None:
    """A lease shorter than a send, a retention shorter than all that an email may have to wait
    for, more attempts than its item can hold: each names both values."""
    with pytest.raises(SettingsError) as caught:
        load(variables)
    assert str(caught.value).startswith(f"{names[0]}: ")
    assert all(name in str(caught.value) for name in names)


def test_values_that_just_fit_together() -> None:
    settings = load(
        {
            "MAILRELAY_LEASE": "5",
            "MAILRELAY_PROVIDER_TIMEOUT": "1",
            "MAILRELAY_RETRY_SCHEDULE": "41000,43200",
            "MAILRELAY_RETENTION_DAYS": "1",
        }
    )
    assert settings.lease == 1 + 3 + settings.provider_timeout


def test_shows_no_secret(make_settings: MakeSettings) -> None:
    """The settings may be printed or logged: nothing secret is in their text."""
    settings = make_settings(
        MAILRELAY_API_KEYS="shop:k3y-._~+/=",
        MAILGUN_API_KEY="mailgun-secret",
        SENDGRID_API_KEY="sendgrid-secret",
    )
    shown = f"{settings!r} {settings}"
    for secret in ("k3y", KEY_DIGEST, "mailgun-secret", "sendgrid-secret"):
        assert secret not in shown


@pytest.mark.parametrize("variable", ["MAILGUN_API_KEY", "SENDGRID_API_KEY", "MAILRELAY_API_KEYS"])
def test_a_refusal_shows_no_secret(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: "hush hush"})
    assert "hush" not in str(caught.value)


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load({}).port = 1  # type: ignore[misc]
