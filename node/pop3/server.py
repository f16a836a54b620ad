"""
POP3 as sockets: a thin Protocol over a Session, its time-outs and its back-pressure. Knows no verbs.

Guarantees  every command is served in turn, pipelined ones too (RFC 2449 section 6.6). At most one ask is under way;
            meanwhile at most READ_AHEAD_OCTETS are read. At most about 256 KiB are held for a client that does
            not read, and it holds up nobody else. A connection that breaks removes nothing (RFC 1939 section 6).
Fails with  nothing: failures of asks are replies, broken connections are ends of sessions.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Protocol as TypedProtocol
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from node import journal
from node.dots import END_OF_MESSAGE, Stuffer, TopCutter
from node.lines import LineBuffer
from node.pop3 import asks
from node.pop3.asks import Opened, Started, World
from node.pop3.session import Ask, Fetch, Open, Refusal, Remove, Session
from node.pop3.wire import COMMAND_OCTETS_MAX, Reply, err, ok

AUTOLOGOUT_SECONDS = 600.0  # RFC 1939 section 3: at least 10 minutes, and any command resets it.
PIPELINED_MAX = 64  # Commands waiting while one is served; then we stop reading the socket.
READ_AHEAD_OCTETS = PIPELINED_MAX * COMMAND_OCTETS_MAX
COLLECTED_OCTETS = 64 * 1024  # Replies to pipelined commands go out together, up to so many.
SESSIONS_MAX = 20_000  # Per node process: at some 12 KB each, a quarter of a gigabyte.


class Transport(TypedProtocol):
    """What a connection's transport can do: twisted's ITCPTransport, as far as it is needed here."""

    producerPaused: bool  # noqa: N815 (whether resumeProducing() is owed when the buffer is empty)

    def write(self, data: bytes) -> None: ...  # noqa: D102
    def registerProducer(self, producer: object, streaming: bool) -> None: ...  # noqa: D102, N802, FBT001
    def unregisterProducer(self) -> None: ...  # noqa: D102, N802
    def pauseProducing(self) -> None: ...  # noqa: D102, N802
    def resumeProducing(self) -> None: ...  # noqa: D102, N802
    def loseConnection(self) -> None: ...  # noqa: D102, N802
    def abortConnection(self) -> None: ...  # noqa: D102, N802


@implementer(IPushProducer, IHalfCloseableProtocol)
class Pop3Protocol(Protocol):
    """One connection."""

    def __init__(self, shared: "Pop3Factory", peer: str, *, proxied: bool = False) -> None:
        self._shared = shared
        self._peer = peer
        self._proxied = proxied
        self.last_active = shared.clock()
        self._began = self.last_active
        self._session = Session(plain_allowed=shared.plain_allowed)
        self._lines = LineBuffer()
        self._opened: Opened | None = None
        self._serving = False  # An ask is under way, or the loop in _serve() is running.
        self._reading_paused = False
        self._writing_paused = False
        self._input_ended = False
        self._drained: Deferred[None] | None = None
        self._gone = False
        self._ended = "lost"
        self._commands = 0
        self._fetched = 0
        self._removed = 0
        self._octets_out = 0
        self._send_now: Callable[[bytes], object] | None = None

    # Twisted's side

    def connectionMade(self) -> None:  # noqa: N802
        """Greet, or say that the house is full."""
        self._out = cast("Transport", self.transport)
        self._send_now = getattr(self.transport, "writeSomeData", None)
        if len(self._shared.sessions) >= SESSIONS_MAX:
            self._write(err("too many connections, try again later", "SYS/TEMP").encode())
            self._gone = True
            self._out.loseConnection()
            return
        self._shared.sessions.add(self)
        self._out.registerProducer(self, True)
        self._write(self._shared.greeting)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Serve what arrived, or keep it for its turn."""
        self._lines.append(data)
        if not self._serving and not self._writing_paused:
            self._serve()
        elif len(self._lines) > READ_AHEAD_OCTETS and not self._reading_paused:
            self._reading_paused = True
            self._out.pauseProducing()

    def readConnectionLost(self) -> None:  # noqa: N802
        """Serve what a client sent before it closed its half (``printf ... | nc``), then close ours."""
        self._input_ended = True
        if not self._serving and not self._writing_paused:
            self._serve()

    def writeConnectionLost(self) -> None:  # noqa: N802
        """Never comes: we do not close our half alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802, ARG002
        """Drop the claim; remove nothing: there was no QUIT."""
        if self._gone and self not in self._shared.sessions:
            return
        self._gone = True
        self._shared.sessions.discard(self)
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
        if self._opened is not None and not self._serving:
            self._detach(self._close())
        self._journal()

    # The connection's output buffer is full, or empty again (IPushProducer)

    def pauseProducing(self) -> None:  # noqa: N802
        """The client reads more slowly than we write: serve nothing more until it has read."""
        self._writing_paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        """The client has read everything."""
        self._writing_paused = False
        self.last_active = self._shared.clock()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
        elif not self._serving:
            self._serve()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is lost; connectionLost() does the rest."""

    # Serving

    def _serve(self) -> None:
        """Serve complete lines in turn, until one has to ask the world or the client has to read first."""
        self._serving = True
        self.last_active = self._shared.clock()
        session, lines = self._session, self._lines
        replies: list[bytes] = []
        collected = 0
        while not self._writing_paused and not self._gone:
            line = lines.next_line(session.line_octets_max)
            if line is None:
                break
            self._commands += 1
            step = session.receive(line)
            reply = step.encode() if isinstance(step, Reply) else self._at_hand(step)
            if reply is not None:
                replies.append(reply)
                if isinstance(step, Reply) and step.ends:
                    self._write(b"".join(replies))
                    self._end("quit" if step.line.startswith(b"+OK") else "refused")
                    return
                collected += len(reply)
                if len(replies) < PIPELINED_MAX and collected < COLLECTED_OCTETS:
                    continue
                # Let the transport judge whether the client still reads.
            if replies:
                self._write(b"".join(replies))
                replies.clear()
                collected = 0
            if reply is None and not isinstance(step, Reply):
                performed = Deferred.fromCoroutine(self._perform(step)).addErrback(self._bug)
                if not performed.called:
                    performed.addCallback(self._go_on)
                    return
                # Answered at once: go on in this loop, where a thousand such answers do not pile up on the stack.
        if replies:
            self._write(b"".join(replies))
        self._pause()

    def _go_on(self, _performed: None) -> None:
        if self._gone:
            self._pause()
        else:
            self._serve()

    def _pause(self) -> None:
        """Nothing can be served now. Where the connection has ended meanwhile, nothing ever will."""
        self._serving = False
        if self._gone:
            if self._opened is not None:
                self._detach(self._close())
        elif self._writing_paused:
            pass  # resumeProducing() goes on.
        elif self._input_ended:
            self._end("lost")
        elif self._reading_paused:
            self._reading_paused = False
            self._out.resumeProducing()

    def _at_hand(self, ask: Ask) -> bytes | None:
        """Return the reply to a RETR whose message is here already: no trip to the disk, no coroutine."""
        if self._opened is None or not isinstance(ask, Fetch) or ask.body_lines is not None:
            return None
        message = asks.at_hand(self._opened, ask)
        if message is None:
            return None
        self._fetched += 1
        return ok(f"{ask.message.octets} octets").encode() + Stuffer().feed(message) + END_OF_MESSAGE

    async def _perform(self, ask: Ask) -> None:
        match ask:
            case Open():
                await self._open(ask)
            case Fetch():
                await self._fetch(ask)
            case Remove():
                await self._remove(ask)

    async def _open(self, ask: Open) -> None:
        outcome = await asks.open_mailbox(self._shared.world, ask)
        if isinstance(outcome, Refusal):
            self._shared.count_login(outcome.code or "refused")
            self._answer(self._session.refused(outcome))
        else:
            self._shared.count_login("ok")
            self._opened = outcome
            self._answer(self._session.opened(outcome.snapshot))

    async def _fetch(self, ask: Fetch) -> None:
        if self._opened is None:
            return
        outcome = await asks.fetch(self._shared.world, self._opened, ask)
        if isinstance(outcome, Refusal):
            self._answer(self._session.refused(outcome))
            return
        self._fetched += 1
        heading = ok(f"{ask.message.octets} octets" if ask.body_lines is None else "top of message")
        await self._stream(heading.encode(), outcome, None if ask.body_lines is None else TopCutter(ask.body_lines))

    async def _stream(self, heading: bytes, started: Started, cutter: TopCutter | None) -> None:
        """Send a message chunk by chunk, each after the client has read most of the one before."""
        stuffer, chunk, reading = Stuffer(), started.first, started.reading
        try:
            while not self._gone:
                out = heading + stuffer.feed(cutter.feed(chunk) if cutter else chunk)
                heading = b""
                if reading is None or not chunk or (cutter is not None and cutter.done):
                    self._write(out + END_OF_MESSAGE)
                    return
                self._write(out)
                if self._writing_paused:
                    self._drained = Deferred()
                    await self._drained
                if not self._gone:
                    chunk = await self._shared.world.disk.run(reading.next_chunk)
        except Exception as error:  # noqa: BLE001
            # Half a message is on the wire and POP3 has no word for "the rest is missing": only a broken
            # connection keeps the client from taking it for the whole.
            journal.failure("fetch_broken", error, peer=self._peer, user=self._session.login)
            self.abort("broken")
        finally:
            if reading is not None:
                # A pool that is overloaded leaves the descriptor to the end of ``reading``.
                self._shared.world.disk.run(reading.close).addErrback(lambda _: None)

    async def _remove(self, ask: Remove) -> None:
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        outcome = await asks.remove(self._shared.world, opened, ask)
        if isinstance(outcome, Refusal):
            self._answer(self._session.not_removed(outcome))
        else:
            self._removed = len(ask.messages) - outcome
            self._answer(self._session.removed(outcome))

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await asks.close(self._shared.world, opened)

    # Ending

    def _answer(self, reply: Reply) -> None:
        if not self._gone:
            self._write(reply.encode())
            if reply.ends:
                self._end("quit" if reply.line.startswith(b"+OK") else "refused")

    def _end(self, how: str) -> None:
        """Close behind what was written; nothing is served any more."""
        self._ended = how
        self._gone = True
        self._serving = False
        self._out.unregisterProducer()
        self._out.loseConnection()

    def end_before_login(self, silent_since: float) -> None:
        """Close the connection if nobody has logged in, nothing is served and nothing was heard since then."""
        if self._opened is None and not self._serving and not self._gone and self.last_active <= silent_since:
            self._end("stopped")

    def abort(self, how: str) -> None:
        """Close at once, without a word and without UPDATE."""
        self._ended = how
        self._gone = True  # connectionLost() comes in a later turn; what was pipelined must not be served until then.
        self._out.abortConnection()

    def _write(self, data: bytes) -> None:
        """
        Send now what the kernel takes, and leave the rest to the transport.

        A plain write() always waits for the reactor's next turn, which costs two calls of epoll and one turn for each
        reply. Not with TLS, whose transport has no writeSomeData().
        """
        self._octets_out += len(data)
        if self._send_now is not None and not self._writing_paused:
            sent = self._send_now(data)
            if not isinstance(sent, int):  # The connection is lost, as the reactor will tell us.
                return
            if sent == len(data):
                return
            # From here until the transport calls resumeProducing() it holds something, however little.
            self._writing_paused = self._out.producerPaused = True
            data = data[sent:]
        self._out.write(data)

    def _detach(self, coroutine: Coroutine[Deferred[object], object, None]) -> None:
        """Run a coroutine that nobody awaits; its failure is a bug, which ends the connection and is told."""
        Deferred.fromCoroutine(coroutine).addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        journal.failure("session_bug", failure.value, peer=self._peer, user=self._session.login)
        self.abort("bug")

    def _journal(self) -> None:
        if self._proxied and not self._commands:
            return  # A balancer's check, or its client that went away: no session.
        self._shared.count_session(self._ended, self._commands)
        journal.event(
            "session",
            node=self._shared.node,
            peer=self._peer,
            user=self._session.login or "-",
            end=self._ended,
            commands=self._commands,
            fetched=self._fetched,
            removed=self._removed,
            octets=self._octets_out,
            seconds=self._shared.clock() - self._began,
        )


class Pop3Factory(Factory):
    """What all connections of a node share."""

    noisy = False

    def __init__(
        self,
        *,
        node: str,
        greeting: str,
        plain_allowed: bool,
        world: World,
        count_login: Callable[[str], None],
        count_session: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.greeting = ok(greeting).encode()
        self.plain_allowed = plain_allowed
        self.world = world
        self.count_login = count_login
        self.count_session = count_session
        self.clock = clock
        self.sessions: set[Pop3Protocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> Pop3Protocol:  # noqa: N802
        """Return the protocol of a new connection."""
        return Pop3Protocol(self, getattr(addr, "host", "local"))

    def introduced(self, client: str) -> Pop3Protocol:
        """Return the protocol of a connection that a proxy made for a client."""
        return Pop3Protocol(self, client, proxied=True)

    def autologout(self) -> None:
        """
        End the sessions that have been silent for too long. The node calls this every second.

        One look at all sessions, instead of a timer for each that every command would have to move.
        """
        # RFC 1939 section 3: close without a word and without UPDATE.
        limit = self.clock() - AUTOLOGOUT_SECONDS
        for session in [session for session in self.sessions if session.last_active < limit]:
            session.abort("autologout")

    def stop_greeting(self, silent_seconds: float = 0.0) -> None:
        """End the connections on which nobody logs in (the node stops); sessions go on."""
        silent_since = self.clock() - silent_seconds
        for session in list(self.sessions):
            session.end_before_login(silent_since)
