"""From the caller's environment to that of the parts: what is not given is served on this machine.

The rules, for a variable that is set and not empty:

* `AWS_ENDPOINT_URL` is used as it is. Credentials without an endpoint mean the real AWS. With
  neither, AWS is ministack on `AWS_PORT`. Only the environment counts here: what lies in `~/.aws`
  is there for other work, and starting something to try it must not make tables in that account.
* `MAILGUN_BASE_URL`, `SENDGRID_BASE_URL` and `SES_ENDPOINT_URL` are used as they are. A provider's
  credentials without an address mean the real provider (for SES: the real AWS). With neither, it
  is the sandbox on `SANDBOX_PORT`.
* `MAILRELAY_API_KEYS` is used as it is, else the demo key is. So is `FLOWER_BASIC_AUTH`: without a
  password Flower shows everything and lets nobody do anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mailrelay import settings

AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Where boto3 finds credentials in the environment."""

SHORTEST_ACCESS_KEY_ID = 16
"""Characters (AccessKey in the IAM API reference). What is shorter, such as `test`, is made up."""

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
"""An endpoint elsewhere is an imitation of AWS, which takes any credentials."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start here, and the environment to start it in."""

    environ: Mapping[str, str] = field(repr=False)
    local_aws: bool
    sandbox: bool
    """Whether a provider of the chain is served by the sandbox."""
    aws: str
    """Where AWS is, for people."""
    providers: Mapping[str, str]
    """Each provider of the chain and where its mail goes, for people."""
    demo_key: str | None
    """The key that the API takes; `None` where the caller gave keys of their own."""
    flower_login: str = field(repr=False)
    """How to get into Flower, for people."""


def plan(given: Mapping[str, str], *, data: Path, bin_dir: Path, demo_key: str) -> Plan:
    """What the environment `given` asks for. Reads and writes nothing.

    `data` is the folder for the state, `bin_dir` the one of the programs. Raises
    `settings.SettingsError` for a variable that cannot work.
    """
    # A variable that is set to nothing counts as not set; boto3 would look for a profile named "".
    environ = {name: value for name, value in given.items() if value.strip()}
    checked = settings.load(environ)
    sandbox = f"http://127.0.0.1:{checked.sandbox_port}"

    credentials = next((name for name in AWS_CREDENTIALS if _is_real(name, environ)), None)
    endpoint = environ.get("AWS_ENDPOINT_URL")
    local_aws = endpoint is None and credentials is None
    real_aws = _is_aws(endpoint) if endpoint else not local_aws
    if local_aws:
        endpoint = environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{checked.aws_port}"
        environ.setdefault("MAILRELAY_BUCKET", "mailrelay-content")
    if not real_aws:
        _imitated_aws(environ, made_up_credentials=credentials is None)

    where = {"ses": environ.get("SES_ENDPOINT_URL") or "Amazon SES"}
    if not real_aws and "SES_ENDPOINT_URL" not in environ:
        where["ses"] = environ["SES_ENDPOINT_URL"] = f"{sandbox}/ses"
    # The address is the sandbox's unless something is given that belongs to the real provider.
    if "MAILGUN_API_KEY" not in environ:
        environ.setdefault("MAILGUN_BASE_URL", f"{sandbox}/mailgun")
        environ.setdefault("MAILGUN_DOMAIN", "sandbox.example")
        environ["MAILGUN_API_KEY"] = "sandbox-key"
    if "SENDGRID_API_KEY" not in environ:
        environ.setdefault("SENDGRID_BASE_URL", f"{sandbox}/sendgrid")
        environ["SENDGRID_API_KEY"] = "sandbox-key"
    final = settings.load(environ)
    where |= {"mailgun": final.mailgun_base_url, "sendgrid": final.sendgrid_base_url}
    providers = {name: where.get(name, "as its package says") for name in final.providers}

    in_sandbox = [address.startswith(f"{sandbox}/") for address in providers.values()]
    if all(in_sandbox):
        # Else its pages would promise that nothing leaves this machine.
        environ["MAILRELAY_SANDBOX_URL"] = sandbox
    environ.setdefault("MAILRELAY_FLOWER_URL", f"http://127.0.0.1:{final.flower_port}")

    own_keys = "MAILRELAY_API_KEYS" in environ
    environ.setdefault("MAILRELAY_API_KEYS", f"demo:{demo_key}")
    own_login = "FLOWER_BASIC_AUTH" in environ
    environ.setdefault("FLOWER_BASIC_AUTH", f"demo:{demo_key}")
    environ["SANDBOX_MAILBOX"] = str(data / "sandbox.sqlite")
    environ["PATH"] = ":".join(filter(None, [str(bin_dir), environ.get("PATH")]))
    environ["PYTHONUNBUFFERED"] = "1"  # a line is shown when it is written
    for name in ("NO_PROXY", "no_proxy"):  # programs differ in which one they read
        environ[name] = ",".join(filter(None, [environ.get(name), "127.0.0.1", "localhost"]))

    return Plan(
        environ=environ,
        local_aws=local_aws,
        sandbox=any(in_sandbox),
        aws=endpoint or f"your own account, as {credentials} is set",
        providers=providers,
        demo_key=None if own_keys else demo_key,
        flower_login=(
            "as in FLOWER_BASIC_AUTH" if own_login else f"user demo, password {demo_key}"
        ),
    )


def _is_real(name: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(name, "")
    return len(value) >= (SHORTEST_ACCESS_KEY_ID if name == "AWS_ACCESS_KEY_ID" else 1)


def _is_aws(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith(AWS_DOMAINS)


def _imitated_aws(environ: dict[str, str], *, made_up_credentials: bool) -> None:
    """What boto3 needs to talk to something that is not AWS, and to it alone."""
    environ.setdefault("AWS_REGION", environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    environ.pop("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None)  # it would go to AWS after all
    if made_up_credentials:
        environ.setdefault("AWS_ACCESS_KEY_ID", "local")
        environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
        environ["AWS_EC2_METADATA_DISABLED"] = "true"
