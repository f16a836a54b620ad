"""
Clients behind a balancer: who they are is said by the PROXY header with which a trusted proxy begins each connection.

Guarantees  nobody but a trusted proxy is believed: from others a header is an unknown command. Nothing of a connection
            reaches POP3, LMTP or SMTP before its header is whole, and then nothing stands between it and them. A check
            of the balancer, which comes and goes without a word or with a header alone, leaves no line in the log.
Fails with  one warning that says what to do, and a closed connection: no header, or not in HEADER_SECONDS_MAX.
Knows       trusted proxies, sockets of Twisted and of asyncio. introductions.py reads the header.

Rejected: Twisted's HAProxy wrapper, which lets the protocol greet before it knows who is there and stays between it and
its transport. aiosmtpd's own, which wants a header from everybody or from nobody, and believes everybody.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Protocol as TypedProtocol
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from node import journal
from node.config import Networks
from node.introductions import Client, Introduced, Introduction, NotIntroduced
from node.pop3.server import Pop3Factory, Pop3Protocol

HEADER_SECONDS_MAX = 5.0  # A proxy sends the header with its first packet: this is time to send it again, twice.
ADDRESSES_REMEMBERED = 1024  # Whether an address is trusted; a few proxies make most connections.

# A proxy that is cut off sends no FIN: its clients' claims would stand until the autologout, for ten minutes. With these
# the kernel ends its connections after 9 s, about when others could have the mailbox if this node were cut off instead
# (the lease's 10 s). Not for others: a telephone is out of reach for longer than that, and comes back.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),  # Seconds of silence before the first probe.
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),  # Seconds between probes.
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),  # Probes without an answer.
    # While something we sent is not acknowledged there are no probes; this limit is for then. Milliseconds.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
)


class Socket(TypedProtocol):
    """What can take the options above: a socket, or what uvloop shows of one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> object: ...  # noqa: D102


class Proxies:
    """The trusted proxies of a node, and those of their connections whose header has not come yet."""

    def __init__(self, trusted: Networks, clock: Callable[[], float] = time.monotonic) -> None:
        self._trusted = trusted
        self.clock = clock
        self.awaited: set[_Awaited] = set()
        self.include = lru_cache(ADDRESSES_REMEMBERED)(self._include)

    def _include(self, host: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        try:
            address = ip_address(host)
        except ValueError:  # "", of a connection that is gone already.
            return False
        return any(address in network for network in self._trusted)

    def end_late(self) -> None:
        """End the connections whose header is late. The node calls this every second: cheaper than a timer for each."""
        limit = self.clock() - HEADER_SECONDS_MAX
        for connection in [one for one in self.awaited if one.since < limit]:
            connection.refuse(f"no whole PROXY header within {HEADER_SECONDS_MAX:.0f} s")


class _Awaited:
    """A connection of a trusted proxy until its header is whole, whatever its transport is."""

    def __init__(self, proxies: Proxies, port: str, peer: str, cut: Callable[[], None]) -> None:
        self._awaited = proxies.awaited
        self._port = port
        self._peer = peer
        self._cut = cut
        self._introduction = Introduction()
        self.since = proxies.clock()
        self._awaited.add(self)

    def hear(self, data: bytes) -> Introduced | None:
        """Return who the client is once the header is whole."""
        try:
            found = self._introduction.feed(data)
        except NotIntroduced as error:
            self.refuse(str(error))
            return None
        if found is not None:
            self.forget()
        return found

    def forget(self) -> None:
        """Wait no longer: the header is here, or the connection is gone."""
        self._awaited.discard(self)

    def refuse(self, why: str) -> None:
        """Close the connection and say what to do."""
        self.forget()
        journal.warning(
            "proxy_refused",
            port=self._port,
            peer=self._peer,
            detail=f"{why}. Have the balancer send one (HAProxy: send-proxy-v2 on each server line), or take "
            "its address out of trusted_proxies",
        )
        self._cut()


def _keep_alive(connection: Socket) -> None:
    with contextlib.suppress(OSError):  # The connection is lost, as its transport will tell us.
        for level, option, value in KEEPALIVE:
            connection.setsockopt(level, option, value)


# POP3, on Twisted


class ProxiedPop3(Factory):
    """The factory of POP3 connections where some come from trusted proxies."""

    noisy = False

    def __init__(self, proxies: Proxies, pop3: Pop3Factory) -> None:
        self._proxies = proxies
        self._pop3 = pop3

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802
        """Return POP3 itself, or what waits for a header first."""
        host = getattr(addr, "host", "")
        return _Pop3Caller(self._proxies, self._pop3, host) if self._proxies.include(host) else self._build(addr)

    def _build(self, addr: IAddress | None) -> Protocol:
        return self._pop3.buildProtocol(addr)


class _Transport(TypedProtocol):
    """What is needed here of twisted's tcp.Connection."""

    protocol: Protocol

    def getHandle(self) -> Socket: ...  # noqa: N802
    def abortConnection(self) -> None: ...  # noqa: N802


class _Pop3Caller(Protocol):
    """A connection to the POP3 port until its header is whole."""

    def __init__(self, proxies: Proxies, pop3: Pop3Factory, peer: str) -> None:
        self._proxies = proxies
        self._pop3 = pop3
        self._peer = peer

    def connectionMade(self) -> None:  # noqa: N802
        """Wait."""
        out = cast("_Transport", self.transport)
        _keep_alive(out.getHandle())
        self._awaited = _Awaited(self._proxies, "pop3", self._peer, out.abortConnection)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Make way for POP3 when the client is known: it gets the transport itself, which a wrapper would slow down."""
        found = self._awaited.hear(data)
        if found is None:
            return
        session: Pop3Protocol = self._pop3.introduced(found.client[0] if found.client else self._peer)
        cast("_Transport", self.transport).protocol = session
        session.makeConnection(self.transport)  # type: ignore[no-untyped-call]  # Twisted gives it no types
        if found.rest:
            session.dataReceived(found.rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802, ARG002
        """It was a check, or a client that changed its mind: no line in the log."""
        self._awaited.forget()


# LMTP and SMTP, on asyncio


Serve = Callable[[Client | None], asyncio.Protocol]


class MailCaller(asyncio.Protocol):
    """
    A connection to an LMTP or SMTP port until it is clear who is there.

    :param serve: returns the protocol that goes on, given the client, or None where the peer is the client.
    """

    def __init__(self, proxies: Proxies, port: str, serve: Serve) -> None:
        self._proxies = proxies
        self._port = port
        self._serve = serve
        self._awaited: _Awaited | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header of a trusted proxy; serve others at once."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else ""
        if self._proxies.include(host):
            _keep_alive(transport.get_extra_info("socket"))
            self._awaited = _Awaited(self._proxies, self._port, host, self._transport.abort)
        else:
            self._make_way(None)

    def data_received(self, data: bytes) -> None:
        """Make way when the client is known."""
        found = self._awaited.hear(data) if self._awaited is not None else None
        if found is not None:
            server = self._make_way(found.client)
            if found.rest and not self._transport.is_closing():
                server.data_received(found.rest)

    def _make_way(self, client: Client | None) -> asyncio.Protocol:
        server = self._serve(client)
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        return server

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """It was a check: no line in the log."""
        if self._awaited is not None:
            self._awaited.forget()
