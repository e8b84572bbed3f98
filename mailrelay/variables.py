"""Every variable: its name, what it means, what it takes and its default, in sections.

docs/configuration.md has its tables from here. A variable that is set to nothing counts as not set,
as in a compose file or a unit file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load
from marshmallow.validate import Length

from mailrelay import values
from mailrelay.values import ApiKey, Kind, above_zero, choice, matching, whole

RATE_PREFIX = "MAILRELAY_RATE_"
"""What the variable of a provider's rate is called, before the provider's name."""


class Variable(fields.Field[Any]):
    """One variable. `meaning` is Markdown, with links as seen from docs/."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        meaning: str,
        *,
        default: Any = None,
        unset: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(data_key=name, load_default=default, **kwargs)
        self.names: tuple[str, ...] = (name,)
        self.kind = kind
        self.meaning = meaning
        self.unset = unset
        """What counts where there is no default, for people."""

    @property
    def shown_default(self) -> str:
        """The default as it would be written into the environment; empty where there is none."""
        default = self.load_default
        parts = default if isinstance(default, tuple) else () if default is None else (default,)
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if (found := self.kind.read(value)) is None:
            raise ValidationError("takes " + self.kind.takes.replace("`", ""))
        return found


class ListVariable(Variable):
    """A comma-separated list of them, as a tuple."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return tuple(
            super(ListVariable, self)._deserialize(part.strip()) for part in value.split(",")
        )


class RateVariables(Variable):
    """The rates of all providers, one variable each, as a dict by the provider's name."""

    def __init__(self, kind: Kind, meaning: str, *, providers: Sequence[str]) -> None:
        super().__init__(RATE_PREFIX, kind, meaning)
        self.names = tuple(RATE_PREFIX + provider.upper() for provider in providers)

    def _deserialize(self, value: Mapping[str, str], *args: Any, **kwargs: Any) -> Any:
        found = {}
        for variable, text in value.items():
            try:
                rate = super()._deserialize(text)
            except ValidationError as error:
                raise ValidationError({variable: error.messages}) from None
            found[variable.removeprefix(RATE_PREFIX).lower()] = rate
        return found


def _distinct_providers(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise ValidationError("names a provider twice")


def _distinct_keys(keys: tuple[ApiKey, ...]) -> None:
    names, digests = {key.name for key in keys}, {key.digest for key in keys}
    if len(names) < len(keys) or len(digests) < len(keys):
        raise ValidationError("has the same name or the same key twice")


BUILT_IN = ("mailgun", "ses", "sendgrid")
"""The providers of this package, in the order in which the chain has them."""


class Api(Schema):
    """The API"""

    api_keys = ListVariable(
        "MAILRELAY_API_KEYS",
        values.API_KEYS,
        "the bearer keys. `NAME:sha256:HEX` keeps only the key's hash here. Without a key nobody"
        " can send",
        default=(),
        validate=_distinct_keys,
    )
    senders = ListVariable(
        "MAILRELAY_SENDERS",
        values.SENDERS,
        "as whom a key may send. A key that is not named here may send as anybody",
        default=(),
    )
    request_limit = Variable(
        "MAILRELAY_REQUEST_LIMIT",
        values.REQUESTS,
        "how many requests each key may make to each web process",
    )
    port = Variable(
        "PORT", values.PORT, "where the web process listens, on 127.0.0.1", default=8000
    )


class Providers(Schema):
    """Providers"""

    providers = ListVariable(
        "EMAIL_PROVIDERS",
        values.PROVIDERS,
        "the chain, in order",
        default=BUILT_IN,
        validate=_distinct_providers,
    )
    mailgun_api_key = Variable(
        "MAILGUN_API_KEY", values.SECRET, "needed while the chain has mailgun"
    )
    mailgun_domain = Variable(
        "MAILGUN_DOMAIN",
        values.DOMAIN,
        "the sending domain; needed while the chain has mailgun",
    )
    mailgun_base_url = Variable(
        "MAILGUN_BASE_URL",
        values.URL,
        "Mailgun's address; `https://api.eu.mailgun.net` for a domain in the EU",
        default="https://api.mailgun.net",
    )
    sendgrid_api_key = Variable(
        "SENDGRID_API_KEY",
        values.SECRET,
        "needed while the chain has sendgrid; its scope is `mail.send`",
    )
    sendgrid_base_url = Variable(
        "SENDGRID_BASE_URL",
        values.URL,
        "SendGrid's address",
        default="https://api.sendgrid.com",
    )
    ses_region = Variable(
        "SES_REGION",
        values.REGION,
        "the region whose identities are verified",
        unset="the AWS region",
    )
    ses_endpoint_url = Variable(
        "SES_ENDPOINT_URL", values.URL, "another address for SES", unset="AWS's own"
    )
    provider_timeout = Variable(
        "MAILRELAY_PROVIDER_TIMEOUT",
        above_zero(86_400),
        "seconds to wait for a provider's answer; connecting may take 3 beside",
        default=10.0,
    )
    provider_pause = Variable(
        "MAILRELAY_PROVIDER_PAUSE",
        above_zero(3600),
        "seconds for which a provider that fails is left alone at first; twice as long each time"
        " that it still fails then, up to 300 or to this, if it is more"
        " ([providers.md](providers.md))",
        default=10.0,
    )
    rates = RateVariables(
        values.RATE,
        "how fast all workers together may send to it. What is over it waits. A provider of"
        " another package has one too, by its name",
        providers=BUILT_IN,
    )


class Aws(Schema):
    """AWS"""

    aws_region = Variable(
        "AWS_REGION",
        values.REGION,
        "the region of DynamoDB, SQS, SNS and S3",
        unset="boto3's own",
    )
    aws_endpoint_url = Variable(
        "AWS_ENDPOINT_URL",
        values.URL,
        "another address for all of AWS, such as a local one",
        unset="AWS's own",
    )
    table = Variable(
        "MAILRELAY_TABLE",
        matching(
            r"[A-Za-z0-9_.\-]{3,255}", "3 to 255 letters, digits, dots, dashes and underscores"
        ),
        "the DynamoDB table",
        default="mailrelay",
    )
    bucket = Variable(
        "MAILRELAY_BUCKET",
        values.BUCKET,
        "the S3 bucket for content over 350 KB compressed; without one such a request is answered"
        " `413`",
    )
    queue_prefix = Variable(
        "MAILRELAY_QUEUE_PREFIX",
        # SQS allows 80 characters; the longest name behind it takes less than 30.
        matching(r"[A-Za-z0-9_\-]{1,50}", "1 to 50 letters, digits, dashes and underscores"),
        "in front of the name of each SQS queue and SNS topic",
        default="mailrelay-",
    )
    retention_days = Variable(
        "MAILRELAY_RETENTION_DAYS",
        above_zero(36_500),
        "days until a batch, its emails and its content are removed; more than an email may be"
        " open, which the retry schedule decides above all",
        default=30.0,
    )


class Delivery(Schema):
    """Delivery"""

    retry_schedule = ListVariable(
        "MAILRELAY_RETRY_SCHEDULE",
        values.DELAYS,
        "from each exhausted chain to its next start; after the last the email is `failed`",
        default=(60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0),
        # Every attempt stands in the email's item (see also `settings.load`).
        validate=Length(max=100, error="takes at most 100 delays"),
    )
    duplicates = Variable(
        "MAILRELAY_DUPLICATES",
        choice("allow", "avoid"),
        "after a request that got no answer: `allow` tries the next provider and risks a second"
        " email, `avoid` stops as `unknown`",
        default="allow",
    )
    lease = Variable(
        "MAILRELAY_LEASE",
        above_zero(86_400),
        "how long a worker may hold an email before it counts as abandoned; at least the provider"
        " timeout and 4 (connecting takes up to 3, the claim 1)",
        default=30.0,
    )
    sweep_interval = Variable(
        "MAILRELAY_SWEEP_INTERVAL", above_zero(86_400), "between two sweeps", default=10.0
    )
    message_ttl = Variable(
        "MAILRELAY_MESSAGE_TTL",
        # MessageRetentionPeriod's range in the SQS API reference.
        whole(60, 1_209_600),
        "how long a message lives in SQS, and so how long until one that vanished is noticed",
        default=60,
    )
    concurrency = Variable(
        "MAILRELAY_CONCURRENCY",
        whole(1, 1000),
        "emails that one worker process sends at the same time",
        default=64,
    )


class Flower(Schema):
    """Flower"""

    events = Variable(
        "MAILRELAY_EVENTS",
        choice("on", "off"),
        "`off`: workers send no events, and Flower shows no tasks"
        " ([what they cost](performance.md))",
        default="on",
    )
    flower_port = Variable("FLOWER_PORT", values.PORT, "where Flower listens", default=5555)


class Metrics(Schema):
    """Metrics"""

    metrics_port = Variable(
        "MAILRELAY_METRICS_PORT",
        whole(0, 65_535),
        "the port of a worker's `/metrics`; `0` for none. Each worker of a machine needs its own",
        default=8001,
    )
    metrics_address = Variable(
        "MAILRELAY_METRICS_ADDRESS",
        values.ADDRESS,
        "the address it listens on; `0.0.0.0` for a Prometheus elsewhere",
        default="127.0.0.1",
    )


class Logs(Schema):
    """Logs"""

    log_format = Variable(
        "MAILRELAY_LOG_FORMAT",
        choice("auto", "json", "text"),
        "`json`, one object a line; `text`; or `auto`: text where standard error is a terminal,"
        " JSON elsewhere. `make run` takes `text` unless it is set",
        default="auto",
    )


class MakeRun(Schema):
    """`make run`"""

    sandbox_port = Variable("SANDBOX_PORT", values.PORT, "the provider sandbox", default=8025)
    aws_port = Variable("AWS_PORT", values.PORT, "the local AWS", default=4566)
    sandbox_url = Variable(
        "MAILRELAY_SANDBOX_URL",
        values.URL,
        "where the console finds the sandbox, for its switches and mailbox. `make run` sets it where"
        " all providers are the sandbox's; elsewhere leave it out",
    )
    flower_url = Variable(
        "MAILRELAY_FLOWER_URL",
        values.URL,
        "where the console's link to Flower leads; without it there is none. `make run` sets it to"
        " its own",
    )


class Environment(Api, Providers, Aws, Delivery, Flower, Metrics, Logs, MakeRun):
    """All variables. Loads a process's environment into a dict by the names of the fields.

    Raises marshmallow's `ValidationError` with its problems by variable.
    """

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def _drop_empty(self, data: Mapping[str, str], **_: Any) -> dict[str, Any]:
        given = {name: value.strip() for name, value in data.items() if value.strip()}
        rates = {name: value for name, value in given.items() if name.startswith(RATE_PREFIX)}
        return {**given, RATE_PREFIX: rates}


SECTIONS = Environment.__bases__
"""As docs/configuration.md has them; their docstrings are its headings."""
