"""
Mail in: LMTP (RFC 2033) and SMTP (RFC 5321) on aiosmtpd, on the reactor's own loop.

Guarantees  I2: 250 only when every byte and the name are durable for that recipient. I6: needs no claim and no ledger:
            recipients.py says who may be one. The end of a message is CRLF.CRLF and nothing
            else, so no client can smuggle a second message past us. A small message waits in memory, a large one in
            an unnamed local file (spool.py).
Fails with  4xx for what a retry can help, 5xx for what it can't; a bug is 451.
Knows       aiosmtpd, the store through the disk pool. Nothing of POP3.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Session, syntax
from aiosmtpd.smtp import Envelope as Transaction
from attrs import frozen
from twisted.internet.defer import Deferred

from node import journal
from node.envelope import Envelope, trace
from node.introductions import Client
from node.pools import Pool
from node.recipients import Recipients, Verdict
from node.spool import Spool
from store.address import Address
from store.domain import MailStore
from store.errors import Full, Missing, Refused, StoreError
from store.mailbox import Mailbox
from store.message import Message

MESSAGE_OCTETS_MAX = 50_000_000  # 50 MB, as the larger mail services allow.
LINE_OCTETS = 64 * 1024  # What aiosmtpd's reader holds at once; a message line may be longer, a command may not.
RECIPIENTS_MAX = 1000  # RFC 5321 section 4.5.3.1.8: at least 100.
CONNECTIONS_MAX = 500  # Per listener's kind and node process.
IDLE_SECONDS = 300.0  # RFC 5321 section 4.5.3.2.7.
STOPPING = b"421 4.3.2 the service is stopping, try again later\r\n"
NO_SUCH_MAILBOX = "550 5.1.1 no such mailbox here"


@frozen(kw_only=True)
class Inbound:
    """What all deliveries of a node share. ``count`` takes the protocol and the outcome of a delivery."""

    node: str
    disk: Pool
    store: MailStore
    recipients: Recipients
    count: Callable[[str, str], None]
    observe: Callable[[str, float], None]
    octets_max: int = MESSAGE_OCTETS_MAX


class MailServer(SMTP):
    """One connection of either protocol; what LMTP does differently is in LmtpServer."""

    line_length_limit = LINE_OCTETS
    protocol = "ESMTP"

    def __init__(self, inbound: Inbound, connections: set["MailServer"], client: Client | None = None) -> None:
        super().__init__(
            _Recipients(inbound),
            data_size_limit=inbound.octets_max,
            enable_SMTPUTF8=True,
            hostname=inbound.node,
            ident="mail service ready",
            timeout=IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
        )
        self._inbound = inbound
        self._connections = connections
        self._client = client  # Who speaks, where the peer is a proxy.
        self.busy = False
        self._served = False  # A message was received.
        self._stopping = False
        # aiosmtpd keeps these limits in the class and widens them with every EHLO of any client.
        self.command_size_limits = _Limits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; one too many is told so and closed."""
        if len(self._connections) >= CONNECTIONS_MAX:
            _dismiss(transport, b"421 4.3.2 too many connections, try again later\r\n")
        self._connections.add(self)
        super().connection_made(transport)
        if self._client is not None and self.session is not None:
            self.session.peer = self._client  # type: ignore[assignment]  # upstream's type forgets TCP

    def connection_lost(self, error: Exception | None) -> None:
        """Uncount it."""
        self._connections.discard(self)
        super().connection_lost(error)

    def eof_received(self) -> bool | None:
        """
        Close when the client closes: upstream ends the conversation here and leaves the rest to it.

        A conversation that has not begun (connect and close at once, as balancers probe) would leave it undone.
        """
        super().eof_received()
        return False

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Note that the client spoke: upstream calls this for each command, and we for each line of a message."""
        self._last_active = self.loop.time()
        super()._reset_timeout(duration)

    def end(self, silent_seconds: float = 0.0) -> None:
        """
        Close the connection if no delivery is under way and the client is silent (the node stops).

        Harmless to repeat. A client that is not silent may send the message it came for, and no second one: one that always
        has another would keep the connection until the node cuts it off, in the middle of a message.
        """
        self._stopping = True
        if self.busy or self.transport is None or self.transport.is_closing():
            return
        if self.loop.time() - self._last_active >= silent_seconds:
            _dismiss(self.transport, STOPPING)

    async def handle_exception(self, error: Exception) -> str:
        """Answer a bug with a temporary failure: the mail stays with the client."""
        reference = journal.failure("delivery_bug", error, protocol=self.protocol)
        return f"451 4.3.0 internal failure, try again later (ref {reference})"

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Read an address; upstream's parser, the standard library's, does not survive every malformed one."""
        try:
            return super()._getaddr(arg)
        except Exception:  # noqa: BLE001 (IndexError, AttributeError and others of its own)
            return None, None

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, arg: str) -> None:  # noqa: N802
        """Tell nobody who is here; upstream's own repeats octets that no reply can have."""
        await self.push("252 2.5.1 no name is verified; send the mail" if arg else "501 5.5.4 VRFY takes an address")

    @syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """Begin a message, unless the node stops and this client had its turn."""
        if not (self._stopping and self._served and self.transport is not None):
            await super().smtp_MAIL(arg)
            return
        _dismiss(self.transport, STOPPING)
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()  # What was pipelined behind it must not be served.

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """Receive a message line by line and deliver it; upstream's own holds all of it in memory."""
        if await self.check_helo_needed():
            return
        transaction = self.envelope
        if transaction is None or not transaction.rcpt_tos:
            await self.push("503 5.5.1 RCPT comes first")
        elif arg:
            await self.push("501 5.5.4 DATA takes no argument")
        else:
            await self.push("354 end with <CR><LF>.<CR><LF>")
            spool = Spool(self._inbound.disk)
            self.busy = True
            try:
                trouble = await self._receive(spool)
                if trouble:
                    await self._refuse(transaction, trouble)
                else:
                    await self._deliver(transaction, spool)
            finally:
                self.busy = False
                self._served = True
                await self._inbound.disk.run(spool.close).asFuture(self.loop)
                self._set_post_data_state()  # type: ignore[no-untyped-call]

    async def _receive(self, spool: Spool) -> str:
        """
        Read up to the end of the message; return "" or the reply that says why it is refused.

        Whatever fails on the way is told at the end: what follows is still the message, and must not be taken for
        commands.
        """
        fits, at_line_start = True, True
        failure: Exception | None = None
        while True:
            try:
                # RFC 5321 section 2.3.8: CRLF ends a line, a bare LF or CR never does.
                part = await self._reader.readuntil(b"\r\n")
                whole = True
            except asyncio.LimitOverrunError as error:
                part = await self._reader.read(error.consumed)
                whole = False
            if at_line_start and part.startswith(b"."):
                if part == b".\r\n":
                    if failure is not None:
                        return await self.handle_exception(failure)
                    return "" if fits else f"552 5.3.4 the message has more than {self._inbound.octets_max} octets"
                part = part[1:]  # RFC 5321 section 4.5.2
            at_line_start = whole
            fits = fits and spool.octets + len(part) <= self._inbound.octets_max
            if fits and failure is None:
                try:
                    await spool.add(part)
                except Exception as error:  # noqa: BLE001
                    failure = error
            self._reset_timeout()

    async def _refuse(self, transaction: Transaction, reply: str) -> None:  # noqa: ARG002
        """Refuse a message that was read to its end."""
        await self.push(reply)

    async def _deliver(self, transaction: Transaction, spool: Spool) -> None:
        """
        Deliver to every recipient and answer once.

        SMTP has one reply for all: a recipient who failed makes it a 4xx, and the client's next try brings the others
        a second copy, which is the lesser evil. LMTP does not have the problem.
        """
        replies = [await self._deliver_to(transaction, recipient, spool) for recipient in transaction.rcpt_tos]
        await self.push(max(replies, key=lambda reply: (not reply.startswith("2"), reply.startswith("4"))))

    async def _deliver_to(self, transaction: Transaction, recipient: str, spool: Spool) -> str:
        """Deliver to one recipient and return the reply."""
        began = time.monotonic()
        inbound = self._inbound
        envelope = Envelope(
            sender="" if transaction.mail_from in (None, "<>") else str(transaction.mail_from),
            helo=str(self.session.host_name if self.session else ""),
            peer=_peer(self.session),
            protocol=self._with(transaction),
            node=inbound.node,
        )
        facts: dict[str, object] = {
            "protocol": self.protocol,
            "peer": envelope.peer,
            "sender": envelope.sender,
            "recipient": recipient,
        }
        try:
            job = inbound.disk.run(_deliver, inbound.store, recipient, trace(envelope, recipient), spool)
            mailbox, message = await job.asFuture(self.loop)
        except Exception as error:  # noqa: BLE001 (whatever it was, the mail stays with the client)
            reference = journal.failure("delivery", error, **facts)
            inbound.count(self.protocol, "failed")
            return _failure_reply(error, reference)
        finally:
            inbound.observe("deliver", time.monotonic() - began)
        inbound.count(self.protocol, "ok")
        seconds = time.monotonic() - began
        journal.event("delivery", **facts, mailbox=mailbox.key, uid=message.uid, octets=message.octets, seconds=seconds)
        return f"250 2.0.0 delivered as {message.uid}"

    def _with(self, transaction: Transaction) -> str:
        """Return the protocol's word for the Received header (RFC 3848, RFC 6531 section 4.3)."""
        if transaction.smtp_utf8:
            return f"UTF8{self.protocol.removeprefix('E')}"
        said_helo = self.session is not None and not self.session.extended_smtp
        return "SMTP" if said_helo else self.protocol


class LmtpServer(MailServer):
    """LMTP: LHLO instead of EHLO, and a reply for each recipient after the message (RFC 2033 section 4)."""

    protocol = "LMTP"

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, arg: str) -> None:  # noqa: N802
        """Greet."""
        await super().smtp_EHLO(arg)

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802, ARG002
        """RFC 2033 section 4.1: HELO and EHLO get a 500."""
        await self.push("500 5.5.1 this is LMTP: say LHLO")

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        """RFC 2033 section 4.1."""
        await self.smtp_HELO(hostname)

    async def _refuse(self, transaction: Transaction, reply: str) -> None:
        for _ in transaction.rcpt_tos:
            await self.push(reply)

    async def _deliver(self, transaction: Transaction, spool: Spool) -> None:
        for recipient in transaction.rcpt_tos:
            await self.push(await self._deliver_to(transaction, recipient, spool))


class _Limits(dict[str, int]):
    """Octets of command lines: RFC 5321 section 4.5.3.1.4, and twice that with room for extensions' parameters."""

    def __missing__(self, command: str) -> int:
        return 1024 if command in ("MAIL", "RCPT") else 512


class _Recipients:
    """aiosmtpd's hooks: who may be a recipient, and what we offer."""

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound

    async def handle_EHLO(  # noqa: N802
        self, server: MailServer, session: Session, _transaction: Transaction, hostname: str, offers: list[str]
    ) -> list[str]:
        """Add what RFC 2033 section 5 wants to aiosmtpd's list, and take HELP out of it."""
        session.host_name = hostname
        server.command_size_limits = _Limits()
        return [*offers[:-1], "250-PIPELINING", "250 ENHANCEDSTATUSCODES"]

    async def handle_RCPT(  # noqa: N802
        self, server: MailServer, _session: Session, transaction: Transaction, address: str, _options: list[str]
    ) -> str:
        """Accept whom a delivery will find."""
        if len(transaction.rcpt_tos) >= RECIPIENTS_MAX:
            return f"452 4.5.3 more than {RECIPIENTS_MAX} recipients; send the rest in another transaction"
        try:
            asked = Deferred.fromCoroutine(self._inbound.recipients.mailbox(address))
            verdict = await asked.asFuture(server.loop)
        except Exception as error:  # noqa: BLE001
            return _failure_reply(error, journal.failure("recipient", error, recipient=address))
        if verdict is not Verdict.YES:
            return NO_SUCH_MAILBOX
        transaction.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"


def _deliver(store: MailStore, recipient: str, heading: bytes, spool: Spool) -> tuple[Mailbox, Message]:
    mailbox = store.find(Address.parse(recipient))
    return mailbox, mailbox.deliver(store.names, spool.chunks(heading))


def _failure_reply(error: BaseException, reference: str) -> str:
    if isinstance(error, (Missing, Refused)):
        return NO_SUCH_MAILBOX
    if isinstance(error, Full):
        return f"452 4.2.2 {error.public} (ref {reference})"
    text = error.public if isinstance(error, StoreError) else "internal failure, try again later"
    return f"451 4.3.0 {text} (ref {reference})"


def _dismiss(transport: asyncio.BaseTransport, reply: bytes) -> None:
    # A cast, because uvloop's transports are no subclasses of asyncio's.
    cast("asyncio.WriteTransport", transport).write(reply)
    transport.close()


def _peer(session: Session | None) -> str:
    peer: Any = session.peer if session is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else "local"
