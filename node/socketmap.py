"""
Postfix's socketmap protocol (socketmap_table(5)): the MTA in front asks which domains and mailboxes there are.

    "domains example.com"        -> "OK example.com"      registered
    "mailboxes ada@example.com"  -> "OK ada@example.com"  a mailbox or an alias
                                 -> "NOTFOUND "           certainly none: Postfix refuses the recipient for good
                                 -> "TEMP <reason>"       could not tell: Postfix has the sender come back
    "anything else"              -> "PERM <reason>"       the MTA's configuration is wrong; it says 451 too

Each request and each reply is a netstring. Postfix asks one thing at a time; replies go in the order of requests.

Guarantees  never NOTFOUND for what could not be looked up (recipients.py). A connection holds at most PIPELINED_MAX
            requests and one transport buffer of replies; whoever exceeds that, or is silent for IDLE_SECONDS, is cut off.
Fails with  nothing: failures are TEMP, broken connections are the asker's to open again (Postfix does, once, at once).
Knows       netstrings, Twisted's transports. It tells who exists to everybody who asks: for an inner network only.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol as TypedProtocol
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import NetstringParseError, NetstringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from node import journal
from node.recipients import Recipients, Verdict
from store.errors import StoreError

REQUEST_OCTETS_MAX = (
    4096  # Postfix reads command lines of 2048 octets (line_length_limit): no longer address gets here.
)
PIPELINED_MAX = 64  # Requests waiting while one is looked up. Postfix sends one at a time.
CONNECTIONS_MAX = 500  # Per node process. Postfix opens one for each process that looks up, a few with proxymap.
IDLE_SECONDS = 60.0  # Postfix closes after 10 s by itself; above the 30 s that a look-up may take.


class Transport(TypedProtocol):
    """What a connection's transport can do: twisted's ITCPTransport, as far as it is needed here."""

    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: D102, N802, FBT001
    def unregisterProducer(self) -> None: ...  # noqa: D102, N802
    def loseConnection(self) -> None: ...  # noqa: D102, N802
    def abortConnection(self) -> None: ...  # noqa: D102, N802


async def answer(recipients: Recipients, request: bytes) -> bytes:
    """Return the reply to one request, both without their netstrings."""
    name, _, key = request.partition(b" ")
    if name not in (b"domains", b"mailboxes"):
        return b"PERM no such map; there are: domains, mailboxes"
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return b"NOTFOUND "  # RFC 6531: an address is UTF-8 or it is none.
    try:
        verdict = recipients.domain(text) if name == b"domains" else await recipients.mailbox(text)
    except Exception as error:  # noqa: BLE001 (whatever it was, it is no reason to say that somebody does not exist)
        reference = journal.failure("recipient", error, protocol="socketmap", recipient=text)
        public = error.public if isinstance(error, StoreError) else "internal failure, try again later"
        return f"TEMP {public} (ref {reference})".encode()
    return b"OK " + key if verdict is Verdict.YES else b"NOTFOUND "


@implementer(IPushProducer)
class SocketmapProtocol(NetstringReceiver):
    """One connection of an MTA."""

    MAX_LENGTH = REQUEST_OCTETS_MAX

    def __init__(self, shared: "SocketmapFactory", peer: str) -> None:
        self._shared = shared
        self._peer = peer
        self._waiting: deque[bytes] = deque()
        self._answering = False
        self._ending = False
        self.last_active = shared.clock()

    # Twisted's side

    def connectionMade(self) -> None:  # noqa: N802
        """Count the connection; one too many is closed, which Postfix takes for "try later"."""
        self._out = cast("Transport", self.transport)
        if len(self._shared.connections) >= CONNECTIONS_MAX:
            journal.warning("socketmap_full", peer=self._peer, connections=CONNECTIONS_MAX)
            self.abort()
            return
        self._shared.connections.add(self)
        self._out.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Read the requests of a chunk; stringReceived() is called for each."""
        if self._ending:
            return
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # this module of Twisted has no types
        if self.brokenPeer:
            journal.warning("socketmap_broken", peer=self._peer, detail="no netstrings, or too long, or too many")
            self.abort()

    def stringReceived(self, string: bytes) -> None:  # noqa: N802
        """Answer a request when its turn comes."""
        self.last_active = self._shared.clock()
        if len(self._waiting) >= PIPELINED_MAX:
            # Ends the reading of the chunk and marks the peer as broken.
            raise NetstringParseError(f"more than {PIPELINED_MAX} requests wait")
        self._waiting.append(string)
        if not self._answering:
            self._answering = True
            Deferred.fromCoroutine(self._answer()).addErrback(self._bug)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802, ARG002
        """Forget the requests that nobody waits for any more."""
        self._ending = True
        self._waiting.clear()
        self._shared.connections.discard(self)

    # The connection's output buffer is full, or empty again (IPushProducer)

    def pauseProducing(self) -> None:  # noqa: N802
        """A client that asks thousands of things and reads no answer is no MTA."""
        self.abort()

    def resumeProducing(self) -> None:  # noqa: N802
        """Never waited for: see pauseProducing()."""

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is lost; connectionLost() does the rest."""

    # Answering

    async def _answer(self) -> None:
        while self._waiting and not self._ending:
            reply = await answer(self._shared.recipients, self._waiting.popleft())
            if not self._ending:
                self.sendString(reply)  # type: ignore[no-untyped-call]
        self._answering = False
        if self._shared.stopping:
            self.end_between_requests()

    def end_between_requests(self) -> None:
        """Close the connection if nobody waits for an answer (the node stops); else it closes behind that answer."""
        if not self._answering and not self._ending:
            self._ending = True
            self._out.unregisterProducer()
            self._out.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self._ending = True
        self._waiting.clear()
        self._out.abortConnection()

    def _bug(self, failure: Failure) -> None:
        journal.failure("socketmap_bug", failure.value, peer=self._peer)
        self.abort()


class SocketmapFactory(Factory):
    """What all connections share."""

    noisy = False

    def __init__(self, recipients: Recipients, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.recipients = recipients
        self.clock = clock
        self.connections: set[SocketmapProtocol] = set()
        self.stopping = False

    def buildProtocol(self, addr: IAddress | None) -> SocketmapProtocol:  # noqa: N802
        """Return the protocol of a new connection."""
        return SocketmapProtocol(self, getattr(addr, "host", "local"))

    def end_idle(self) -> None:
        """Close the connections that have been silent for too long. The node calls this every second."""
        limit = self.clock() - IDLE_SECONDS
        for connection in [connection for connection in self.connections if connection.last_active < limit]:
            connection.abort()

    def stop(self) -> None:
        """Let every connection end behind the answer that is under way; Postfix asks another node then."""
        self.stopping = True
        for connection in list(self.connections):
            connection.end_between_requests()
