"""What happens to a request once a vendor's front has understood it: the fault, or the mailbox."""

import time
from typing import Protocol

from flask import Response, g, request

from mailrelay.sandbox.connection import client_has_left, client_socket, close_unanswered
from mailrelay.sandbox.faults import Fault, Kind, applying
from mailrelay.sandbox.mail import Mail
from mailrelay.sandbox.mailbox import Mailbox
from mailrelay.sandbox.switchboard import Switchboard

HANG_SECONDS = 60.0
# How soon a hanging request notices that its client left or the switch was turned.
_LOOK_SECONDS = 0.1


class Answers(Protocol):
    """A vendor's answers to one request, in its own shape and wording."""

    def accepted(self, mail_id: str) -> Response:
        """The mail was taken, under this id."""

    def refused(self) -> Response:
        """The recipient is at fault."""

    def error(self, status: int, wait: int | None = None) -> Response:
        """An HTTP status from 400 to 599; its words ask for `wait` seconds, where they ask."""


class Exchange:
    """Where the vendors' fronts hand over."""

    def __init__(self, mailbox: Mailbox, switchboard: Switchboard) -> None:
        self._mailbox = mailbox
        self._switchboard = switchboard

    def count_request(self, provider: str) -> None:
        """Notes one request to the provider's send endpoint; call it before anything else."""
        g.met = self._switchboard.count_request(provider)

    def deliver(self, mail: Mail, answers: Answers) -> Response:
        """Meets a valid mail with the fault that applies to it, else keeps it."""
        switched, turns = g.met
        fault = applying(mail.provider, mail.to.email, switched)
        disturbed = self._disturb(mail.provider, fault, turns, answers)
        if disturbed is not None:
            return disturbed
        if fault.kind is Kind.REFUSE:
            return answers.refused()
        self._mailbox.keep(mail)
        if fault.kind is Kind.LOST:
            return close_unanswered(client_socket(request.environ))
        return answers.accepted(mail.id)

    def disturb_check(self, provider: str, answers: Answers) -> Response | None:
        """What the provider's switch makes of a request that sends nothing; `None` is nothing.

        A check of credentials would otherwise call a provider fine that fails every mail.
        """
        fault, turns = self._switchboard.fault(provider)
        if fault.kind is Kind.LOST:
            return close_unanswered(client_socket(request.environ))
        return self._disturb(provider, fault, turns, answers)

    def _disturb(
        self, provider: str, fault: Fault, turns: int, answers: Answers
    ) -> Response | None:
        if fault.kind is Kind.STATUS:
            response = answers.error(fault.status, fault.wait)
            if fault.wait is not None:
                response.headers["Retry-After"] = str(fault.wait)
            return response
        if fault.kind is Kind.CLOSE:
            return close_unanswered(client_socket(request.environ))
        if fault.kind is Kind.HANG:
            return self._hang(provider, turns)
        if fault.kind is Kind.SLOW:
            # The client may give up meanwhile; the mail is accepted all the same, as it would be.
            time.sleep(fault.seconds)
        return None

    def _hang(self, provider: str, turns: int) -> Response:
        """Waits until the switch has more than `turns`, the client leaves or a minute is over.

        That the client's leaving ends it keeps a benchmark with a hanging provider from using up
        the threads, which would make the healthy ones hang too.
        """
        client = client_socket(request.environ)
        deadline = time.monotonic() + HANG_SECONDS
        while (
            time.monotonic() < deadline
            and self._switchboard.turns(provider) == turns
            and not client_has_left(client)
        ):
            time.sleep(_LOOK_SECONDS)
        return close_unanswered(client)
