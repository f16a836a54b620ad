"""
A small TCP balancer for the drill on one machine: what HAProxy does in the Compose lab, without HAProxy.

Connections of a service go round over the nodes that are ready for it; where none is, over those that are alive, which
tell the client why (-ERR [SYS/TEMP] beats a closed door). A node that can't be connected to is passed over at once.

Guarantees  only loopback is listened at; close() ends every connection and the thread.
Knows       the health pages of a node, the PROXY header. Nothing of POP3 or LMTP.

Rejected: HAProxy itself, which would be a third thing to install before the drill can be tried.
"""

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator

from attrs import define, field, frozen

CHECK_SECONDS = 0.2  # As deploy/lab/haproxy.cfg: a node is out in two checks, and in again in two.
ANSWER_SECONDS_MAX = 0.5  # A check without an answer has failed: the node is paused, or cut off.
CONNECT_SECONDS_MAX = 0.4
FALL = RISE = 2
ALIVE = ("/healthz",)
CHUNK_OCTETS = 65_536
CONNECTIONS_WAITING_MAX = 512
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\x00\x0c"  # Version 2, PROXY; TCP over IPv4; 12 octets follow.


@frozen(kw_only=True)
class Backend:
    """One node as a service sees it: where it serves, and where it tells how it is."""

    name: str
    port: int
    http: int


@frozen(kw_only=True)
class Service:
    """What is balanced. ``ready`` are the health pages; a later one is asked where an earlier one does not exist."""

    name: str
    backends: tuple[Backend, ...]
    ready: tuple[str, ...]


@define(eq=False, kw_only=True)
class _Health:
    """What the last checks of one page of one node said, with HAProxy's rise and fall."""

    is_up: bool = False
    _against: int = field(default=0, alias="against")  # Checks in a row that say otherwise.

    def note(self, *, good: bool) -> None:
        self._against = 0 if good == self.is_up else self._against + 1
        if self._against >= (FALL if self.is_up else RISE):
            self.is_up, self._against = good, 0


class Balancer:
    """Balances some services on loopback ports; with a PROXY header in front of each connection if the nodes want it."""

    def __init__(self, services: tuple[Service, ...], *, proxy_header: bool) -> None:
        self._services = services
        self._proxy_header = proxy_header
        self._checked = {
            (backend.name, pages): backend
            for service in services
            for backend in service.backends
            for pages in (service.ready, ALIVE)
        }
        self._health = {check: _Health() for check in self._checked}
        self._turn = itertools.count()
        self._listeners = {service.name: _listener() for service in services}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), name="balancer")

    def at(self, service: str) -> tuple[str, int]:
        """Return where clients of a service connect."""
        return "127.0.0.1", self._listeners[service].getsockname()[1]

    def start(self) -> None:
        """Begin to check and to balance."""
        self._thread.start()

    def close(self) -> None:
        """End every connection, and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
        self._loop.close()
        for listener in self._listeners.values():
            listener.close()

    def up(self, service: str) -> set[str]:
        """Return the names of the nodes that connections of a service are placed on as ready."""
        found = next(each for each in self._services if each.name == service)
        return {backend.name for backend in found.backends if self._health[backend.name, found.ready].is_up}

    async def _run(self) -> None:
        for (name, pages), backend in self._checked.items():
            self._tasks.add(asyncio.create_task(self._check(self._health[name, pages], backend, pages)))
        for service in self._services:
            self._tasks.add(asyncio.create_task(self._accept(service)))
        await self._ended.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # How the nodes are

    async def _check(self, health: _Health, backend: Backend, pages: tuple[str, ...]) -> None:
        while True:
            health.note(good=await _answers(backend.http, pages))
            await asyncio.sleep(CHECK_SECONDS)

    def _choices(self, service: Service) -> Iterator[Backend]:
        """Yield the nodes to try for one connection: the ready ones from the next one on; else those that are alive."""
        first = next(self._turn) % len(service.backends)
        around = service.backends[first:] + service.backends[:first]
        ready = [backend for backend in around if self._health[backend.name, service.ready].is_up]
        yield from ready or [backend for backend in around if self._health[backend.name, ALIVE].is_up]

    # Connections

    async def _accept(self, service: Service) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listeners[service.name])
            task = asyncio.create_task(self._carry(client, service))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: socket.socket, service: Service) -> None:
        """Carry one connection: it ends for both as soon as it ends for one."""
        with contextlib.closing(client), contextlib.suppress(OSError):
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for backend in self._choices(service):
                with contextlib.closing(_socket()) as server:
                    try:
                        async with asyncio.timeout(CONNECT_SECONDS_MAX):
                            await self._loop.sock_connect(server, ("127.0.0.1", backend.port))
                    except (OSError, TimeoutError):
                        continue  # It may have died a moment ago: another one serves as well.
                    if self._proxy_header:
                        await self._loop.sock_sendall(server, _header(client))
                    await self._pump_both(client, server)
                    return

    async def _pump_both(self, client: socket.socket, server: socket.socket) -> None:
        ways = [asyncio.create_task(self._pump(*way)) for way in ((client, server), (server, client))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        while chunk := await self._loop.sock_recv(source, CHUNK_OCTETS):
            await self._loop.sock_sendall(sink, chunk)


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS_WAITING_MAX)
    listener.setblocking(False)
    return listener


def _socket() -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _header(client: socket.socket) -> bytes:
    """Return the PROXY header, version 2: where the client comes from, and where it went to."""
    (host, port), (here, at) = client.getpeername(), client.getsockname()
    ports = struct.pack("!HH", port, at)
    return PROXY_V2 + socket.inet_aton(host) + socket.inet_aton(here) + ports


async def _answers(http: int, pages: tuple[str, ...]) -> bool:
    """Tell whether a node says 200: of the first page that it knows."""
    for page in pages:
        status = await _status(http, page)
        if status != b"404":
            return status == b"200"
    return False


async def _status(http: int, page: str) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", http)
            try:
                writer.write(f"GET {page} HTTP/1.0\r\n\r\n".encode())
                line: bytes = await reader.readline()
                return [*line.split(), b"", b""][1]
            finally:
                writer.close()
    return b""
