"""What a person needs to know once everything runs."""

from __future__ import annotations

from mailrelay.local.environment import Plan
from mailrelay.settings import Settings

_BODY = """{
  "from": {"email": "facundo@example.com", "name": "Facundo"},
  "destinations": [{"email": "pedro@example.org", "name": "Pedro"}],
  "subject": "test",
  "plainContent": "test"
}"""


def curl(settings: Settings, key: str) -> str:
    """A command for a POSIX shell that sends an email, on several lines."""
    return (
        f"curl -X POST http://127.0.0.1:{settings.port}/emails/send \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        f'  -H "Content-Type: application/json" \\\n'
        f"  -d '{_BODY}'"
    )


def banner(settings: Settings, plan: Plan, seconds: float) -> str:
    api = f"http://127.0.0.1:{settings.port}"
    rows = {
        "console": f"{api}/  (sign in with the key)",
        "API": f"{api}/emails  (described at /docs)",
    }
    if plan.sandbox:
        rows["sandbox"] = f"http://127.0.0.1:{settings.sandbox_port}  (its mailbox)"
    rows["Flower"] = f"http://127.0.0.1:{settings.flower_port}  ({plan.flower_login})"
    rows["metrics"] = f"{api}/metrics"
    if settings.metrics_port:
        rows["metrics"] += f" (web), http://127.0.0.1:{settings.metrics_port}/metrics (worker)"
    rows["AWS"] = plan.aws
    rows |= plan.providers
    # The caller's own keys may be in use elsewhere, and terminals get copied into tickets.
    rows["key"] = plan.demo_key or "yours: those in MAILRELAY_API_KEYS"
    width = max(map(len, rows))
    table = "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())
    hint = "" if plan.demo_key else ", with your key in $KEY"
    return (
        f"\nmailrelay is ready after {seconds:.0f} s: open {api}/\n\n{table}\n\n"
        f"Send an email there, or from a shell{hint}:\n\n{curl(settings, plan.demo_key or '$KEY')}\n\n"
        f"Ctrl-C stops everything; what is stored stays in .data/.\n\n"
    )
