"""`python -m mailrelay.local`: what `make run` runs, in the folder of the Procfiles."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mailrelay import aws, providers
from mailrelay.local.aws import LOCK, take
from mailrelay.local.banner import banner
from mailrelay.local.environment import Plan, plan
from mailrelay.local.supervisor import (
    Console,
    ProcfileError,
    Programs,
    read_procfile,
    supervise,
)
from mailrelay.settings import Settings, SettingsError, load

OURS = re.compile(
    r"(MAILRELAY|MAILGUN|SENDGRID|SES|FLOWER)_.*|EMAIL_PROVIDERS|(SANDBOX_|AWS_)?PORT"
    r"|AWS_(REGION|ENDPOINT_URL)"
)
"""The variables that say what runs."""

SECRET = ("MAILRELAY_API_KEYS", "MAILGUN_API_KEY", "SENDGRID_API_KEY", "FLOWER_BASIC_AUTH")


class StartError(Exception):
    """Why it cannot start, in one line."""


def main() -> None:
    started = time.monotonic()
    data = Path.cwd() / ".data"
    # Not resolved: in a virtual environment the interpreter is a link, and its programs lie here.
    bin_dir = Path(sys.executable).parent
    try:
        parts, local = read_procfile(Path("Procfile")), read_procfile(Path("Procfile.local"))
        data.mkdir(mode=0o700, exist_ok=True)
        lock(data)
        plan_ = plan(os.environ, data=data, bin_dir=bin_dir, demo_key=demo_key(data))
        settings = load(plan_.environ)
        check_ports(ports(settings, plan_))
        given = dict(os.environ)
        os.environ.clear()
        os.environ.update(plan_.environ)
        # What would end each worker, and have it started again for ever.
        aws.region(settings)
        providers.create(settings)
        keep_environment(data, given, plan_.environ)
    except (SettingsError, ProcfileError, StartError) as error:
        raise SystemExit(f"mailrelay: {error}") from None
    except OSError as error:
        raise SystemExit(f"mailrelay: {error.filename}: {error.strerror}") from None

    programs = what_to_run(parts, local, settings, plan_)
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    # The parts write into pipes, and would take their reader for a machine. It is a person, also
    # behind `make run | tee`: with the part's name in front no line is JSON anyway.
    os.environ.setdefault("MAILRELAY_LOG_FORMAT", "text")
    if color:
        os.environ.setdefault("FORCE_COLOR", "1")
    stream = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
    console = Console(stream, programs.names, color=color)
    console.say(f"starting {', '.join([*programs.first, *programs.parts])}; AWS is {plan_.aws}")
    supervise(programs, data, console, lambda: banner(settings, plan_, time.monotonic() - started))


def demo_key(data: Path) -> str:
    """The key kept in `data`, made at the first call."""
    path = data / "demo-key"
    with contextlib.suppress(FileNotFoundError):
        if key := path.read_text().strip():
            return key
    key = secrets.token_urlsafe(24)
    path.touch(mode=0o600)
    path.write_text(f"{key}\n")
    return key


def keep_environment(data: Path, given: Mapping[str, str], planned: Mapping[str, str]) -> None:
    """Write what another terminal needs to look at what runs here to `data`, for a shell to read.

    That is what was added to the caller's environment, and what they gave themselves but secrets:
    their keys are not ours to write down.
    """
    kept = {
        name: value
        for name, value in planned.items()
        if given.get(name) != value or (OURS.fullmatch(name) and name not in SECRET)
    }
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(kept.items())]
    path = data / "environment"
    path.touch(mode=0o600)
    path.write_text("".join(lines))


def ports(settings: Settings, plan: Plan) -> dict[str, int]:
    """The ports that the parts will listen on, by variable."""
    needed = {"PORT": settings.port, "FLOWER_PORT": settings.flower_port}
    if plan.sandbox:
        needed["SANDBOX_PORT"] = settings.sandbox_port
    if plan.local_aws:
        needed["AWS_PORT"] = settings.aws_port
    return needed


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise `StartError` for a port on 127.0.0.1 that cannot be listened on, or is wanted twice."""
    with contextlib.ExitStack() as stack:
        for variable, port in ports.items():
            twin = next(name for name, other in ports.items() if other == port)
            if twin != variable:
                raise StartError(f"{variable} and {twin} are both {port}; set one to another port")
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen()  # two sockets can be bound to one port while neither listens
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                problem = "is taken" if taken else f"cannot be used ({error.strerror})"
                raise StartError(
                    f"{variable}={port} {problem} on 127.0.0.1; set {variable} to another port"
                    " or stop what listens there"
                ) from None


def lock(data: Path) -> None:
    """Keep `data` for this process until it ends; raise `StartError` if another one has it.

    Two that run on different ports would overwrite each other's state. Neither may the local AWS
    of a run that was killed live on: it has a lock of its own.
    """
    if take(data / "lock") is None:
        raise StartError(
            f"it runs already with its state in {data}; stop it first, or use another checkout"
        )
    left = take(data / LOCK)
    if left is None:
        raise StartError(
            f"an earlier run was killed and its parts live on, with their state in {data}; end them"
            " (pgrep -f mailrelay.local.aws finds the first), then start again"
        )
    os.close(left)


def what_to_run(
    parts: Mapping[str, str], local: Mapping[str, str], settings: Settings, plan: Plan
) -> Programs:
    """`parts` and `local` are the commands of the two Procfiles."""
    addresses = {}
    if plan.local_aws:
        addresses["aws"] = f"http://127.0.0.1:{settings.aws_port}/_ministack/ready"
    if plan.sandbox:
        addresses["sandbox"] = f"http://127.0.0.1:{settings.sandbox_port}/"
    return Programs(
        first={name: local[name] for name in addresses},
        setup=_wait(*addresses.values(), "--", "mailrelay", "init"),
        parts=parts,
        ready=_wait(
            f"http://127.0.0.1:{settings.port}/readyz",
            f"http://127.0.0.1:{settings.flower_port}/healthcheck",
        ),
    )


def _wait(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "mailrelay.local.wait", *arguments])


if __name__ == "__main__":
    main()
