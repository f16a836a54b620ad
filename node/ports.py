"""
The ports at which a node serves mail: POP3, LMTP and SMTP. How they open, and how they close without losing anybody.

Order       bound before the reactor runs, while a refusal can still be a sentence; open when there is something to
            serve; close: no new connections, but those that the kernel has let in already are served; then
            end_silent(), again and again, ends those that wait for nothing; abort() ends the rest.
Fails with  Misconfigured where a port is taken or forbidden.
Knows       listening sockets and the connections of each protocol. Nothing of what is said on them.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from node.config import Config
from node.delivery import Inbound, LmtpServer, MailServer
from node.pop3.server import Pop3Factory, Pop3Protocol
from node.proxied import MailCaller, ProxiedPop3, Proxies, Serve
from node.startup import BACKLOG, bind

# While a node stops: a client that has begun nothing is waited for until it was silent for so long. Placed here a moment
# ago, it has its first command on the way; several trips around the world and a client on a busy machine are within that.
# Rejected: ending it at once, as a balancer may have placed it an instant before; and waiting for the end of the drain,
# because an MTA keeps idle connections, and one of them would hold up every stop. A session that is logged in and a
# message that is being received are never ended so.
POP3_SILENT_SECONDS = 5.0  # A person sees an error message, and no program tries again for him.
MAIL_SILENT_SECONDS = 2.0  # An MTA hears 421 and comes again by itself.

Make = Callable[[], asyncio.Protocol]


class Ports:
    """All ports of a node, and who is connected to them."""

    def __init__(self, config: Config, *, worker: int = 0) -> None:
        several = worker > 0
        self._pop3_sockets = [
            bind(at, "pop3.listen", reuse_port=several or config.pop3_reuse_port) for at in config.pop3_listen
        ]
        self._lmtp_sockets = [bind(at, "lmtp.listen", reuse_port=several) for at in config.lmtp_listen]
        self._smtp_sockets = [bind(at, "smtp.listen", reuse_port=several) for at in config.smtp_listen]
        self._has_proxies = bool(config.trusted_proxies)
        self.proxies = Proxies(config.trusted_proxies)
        self._pop3_ports: list[Any] = []  # IListeningPort, whose methods mypy can't see without a plugin
        self._mail_ports: list[tuple[socket.socket, asyncio.Server, Make]] = []
        self._mail_connections: set[MailServer] = set()
        self._pop3: Pop3Factory | None = None

    async def open(self, reactor: Any, pop3: Pop3Factory, inbound: Inbound) -> None:
        """Serve from now on."""
        self._reactor = reactor
        self._pop3 = pop3
        # Without proxies there is nobody to wait for, and nothing to look up for each connection.
        self._callers: Pop3Factory | ProxiedPop3 = ProxiedPop3(self.proxies, pop3) if self._has_proxies else pop3
        for listener in self._pop3_sockets:
            # The port has a descriptor of its own.
            self._pop3_ports.append(reactor.adoptStreamPort(listener.fileno(), listener.family, self._callers))
        for kind, name, sockets in (
            (LmtpServer, "lmtp", self._lmtp_sockets),
            (MailServer, "smtp", self._smtp_sockets),
        ):
            serve: Serve = partial(kind, inbound, self._mail_connections)
            make: Make = partial(MailCaller, self.proxies, name, serve) if self._has_proxies else partial(serve, None)
            for listener in sockets:
                serving = asyncio.ensure_future(listen(make, listener.dup()))
                self._mail_ports.append((listener, await Deferred.fromFuture(serving), make))

    async def close(self) -> None:
        """
        Take no new connections, and serve those that the kernel has let in.

        The kernel resets whoever is in the queue of a socket that is closed. So the queue is emptied by hand, with
        nothing between the look that finds it empty and the close. What is left is a handshake that ends in between, or
        that is under way: it is refused or reset before a word was said, and a balancer places it elsewhere. One that was
        given notice (notice.py) has none.
        """
        if self._pop3 is None:
            return  # The node gave up at its start. Its process ends, and the sockets with it.
        for port in self._pop3_ports:
            await _maybe(port.stopListening())
        for listener in self._pop3_sockets:
            for fresh in _let_in(listener):
                with contextlib.suppress(OSError):  # It is gone again.
                    self._reactor.adoptStreamConnection(fresh.fileno(), fresh.family, self._callers)
                fresh.close()
        loop = asyncio.get_running_loop()
        for listener, server, make in self._mail_ports:
            server.close()
            for fresh in _let_in(listener):
                connecting = asyncio.ensure_future(loop.connect_accepted_socket(make, fresh))
                with contextlib.suppress(OSError):
                    await Deferred.fromFuture(connecting)

    def keep_house(self) -> None:
        """End what has been silent for too long. The node calls this every second."""
        if self._pop3 is not None:
            self._pop3.autologout()
        self.proxies.end_late()

    @property
    def is_empty(self) -> bool:
        """Tell whether nobody is connected."""
        return not (self._sessions or self._mail_connections or self.proxies.awaited)

    def end_silent(self) -> None:
        """End the connections that have begun nothing and are silent. Harmless to repeat."""
        if self._pop3 is not None:
            self._pop3.stop_greeting(POP3_SILENT_SECONDS)
        for connection in list(self._mail_connections):
            connection.end(MAIL_SILENT_SECONDS)

    def abort(self) -> None:
        """End the sessions that go on after all."""
        for session in list(self._sessions):
            session.abort("stopped")

    @property
    def _sessions(self) -> set[Pop3Protocol]:
        return set() if self._pop3 is None else self._pop3.sessions


def _let_in(listener: socket.socket) -> list[socket.socket]:
    """Return the connections in a listening socket's queue, and close it."""
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):  # BlockingIOError: that was the last.
        while True:
            fresh, _ = listener.accept()
            fresh.setblocking(False)
            found.append(fresh)
    listener.close()
    return found


async def _maybe(result: Deferred[None] | None) -> None:
    if result is not None:
        await result


async def listen(make: Make, listener: socket.socket) -> asyncio.Server:
    """Serve a listening socket. The loop listens once more, and would let the kernel keep 100 connections only."""
    return await asyncio.get_running_loop().create_server(make, sock=listener, backlog=BACKLOG)
