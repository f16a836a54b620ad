"""Where deliveries take place: a server in this process, or a live node; and a client that says just what it is told."""

import asyncio
import io
import itertools
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Self

import uvloop
from dialogs.connection import MemoryConnection
from dialogs.memory import House, factory_of, world_of

from node.delivery import Inbound, LmtpServer, MailServer
from node.lab import Lab, LabNode, accepts, wait_until
from node.pools import InlinePool
from node.ports import listen
from node.recipients import Recipients
from store import identity
from store.domain import MailStore
from store.names import NameSource

DOMAIN = "example.org"
PASSWORD = "lovelace"
OCTETS_MAX = 2_000_000
_names = itertools.count(1)


class Client:
    """One SMTP or LMTP connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")
        self.greeting = self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> str:
        """Return the next reply, its lines joined with LF; "" where the server closed."""
        lines = []
        while line := self.file.readline().decode():
            lines.append(line.removesuffix("\r\n"))
            if line[3:4] != "-":
                break
        return "\n".join(lines)

    def say(self, line: str) -> str:
        self.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return self.reply()

    def begin(self, *recipients: str, sender: str = "bob@example.net", hello: str = "LHLO mx", more: str = "") -> None:
        """Go as far as DATA, to which the server says 354."""
        assert self.say(hello)[:3] == "250"
        assert self.say(f"MAIL FROM:<{sender}>{more}")[:3] == "250"
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>") == "250 2.1.5 recipient ok"
        assert self.say("DATA")[:3] == "354"

    def data(self, content: bytes) -> str:
        """Send a message with its end and return the (first) reply. ``content`` is sent as it is."""
        self.send(content + b".\r\n")
        return self.reply()


class Place:
    """A store with one domain, and servers in front of it."""

    house: House
    lmtp_port: int
    smtp_port: int

    def lmtp(self) -> Client:
        return Client(self.lmtp_port)

    def smtp(self) -> Client:
        return Client(self.smtp_port)

    def mailbox(self) -> str:
        """Make a mailbox of a name that no other test has."""
        address = f"user{next(_names)}@{DOMAIN}"
        self.house.mailbox(address, PASSWORD)
        return address

    def received(self, user: str) -> list[bytes]:
        """Return what RETR gives for every message of a mailbox, dots unstuffed, trace and all."""
        raise NotImplementedError

    def contents(self, user: str) -> list[bytes]:
        """The same, each without its five lines of trace."""
        return [message.split(b"\r\n", 5)[5] for message in self.received(user)]

    def content(self, user: str) -> bytes:
        (content,) = self.contents(user)
        return content


def retrieve(exchange: "Exchange", user: str) -> list[bytes]:
    """Read a whole mailbox by POP3, and hold each message against its octets in LIST."""
    exchange.command(f"USER {user}")
    exchange.command(f"PASS {PASSWORD}")
    exchange.command("LIST")
    octets = [int(line.split()[1]) for line in exchange.body().splitlines()]
    found = []
    for number, size in enumerate(octets, 1):
        assert exchange.command(f"RETR {number}") == b"+OK %d octets\r\n" % size
        found.append(exchange.body())
        assert len(found[-1]) == size
    exchange.command("QUIT")
    return found


class Exchange:
    """The client's side of POP3, byte for byte (poplib takes a bare CR for something else)."""

    def __init__(self, send, readline) -> None:
        self._send, self._readline = send, readline
        assert self._readline().startswith(b"+OK")

    def command(self, line: str) -> bytes:
        self._send(f"{line}\r\n".encode())
        reply = self._readline()
        assert reply.startswith(b"+OK"), reply
        return reply

    def body(self) -> bytes:
        lines = []
        while (line := self._readline()) != b".\r\n":
            assert line.endswith(b"\r\n"), line[-80:]
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


class MemoryPlace(Place):
    """aiosmtpd in a thread of this process; POP3 in memory."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.house = House.build(str(root))
        self.house.store.add_domain(DOMAIN)
        self.disk = InlinePool()
        self.counted: list[tuple[str, str]] = []
        self.complete = True
        self.trouble: str | None = None
        self.connections: set[MailServer] = set()
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        inbound = Inbound(
            node="n1",
            disk=self.disk,
            store=self.house.store,
            recipients=Recipients(
                disk=self.disk,
                store=self.house.store,
                accepts=lambda domain: domain == DOMAIN,
                is_complete=lambda: self.complete,
                store_trouble=lambda: self.trouble,
            ),
            count=lambda *outcome: self.counted.append(outcome),
            observe=lambda _ask, _seconds: None,
            octets_max=OCTETS_MAX,
        )
        self.servers = []
        for kind, name in ((LmtpServer, "lmtp_port"), (MailServer, "smtp_port")):
            listener = socket.create_server(("127.0.0.1", 0))
            setattr(self, name, listener.getsockname()[1])
            self.servers.append(self.run(listen(partial(kind, inbound, self.connections), listener)))

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def received(self, user: str) -> list[bytes]:
        connection = MemoryConnection(factory_of(world_of(self.house)))
        served = io.BytesIO()

        def read_on() -> None:
            position = served.tell()
            written = served.seek(0, io.SEEK_END)
            served.write(connection.received[written:])
            served.seek(position)

        def send(data: bytes) -> None:
            connection.send(data)
            read_on()

        read_on()
        return retrieve(Exchange(send, served.readline), user)

    def stop(self) -> None:
        async def close() -> None:
            for server in self.servers:
                server.close()
            for connection in list(self.connections):
                connection.end()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                await asyncio.wait(tasks, timeout=10)

        self.run(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


class SmallLab(Lab):
    """A lab whose nodes take messages of OCTETS_MAX only."""

    def configure(self, node: LabNode, **changes: object) -> None:
        super().configure(node, delivery={"octets_max": OCTETS_MAX}, **changes)


class LivePlace(Place):
    """Two live nodes: mail comes in at the first and is read at the second."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.lab = SmallLab(directory, nodes=2)
        self.lab.start()
        admin = self.lab.admin()
        admin.add_domain(DOMAIN)
        store_id = identity.load(str(self.lab.store)).store_id
        key = identity.derived_key(self.lab.guid, store_id, "credentials")
        self.house = House(MailStore(str(self.lab.store), store_id, NameSource()), key)
        probe = self.mailbox()
        first, self.second = self.lab.nodes
        wait_until(lambda: accepts(first, probe), "the node never learned the domain")
        self.lmtp_port, self.smtp_port = first.ports.lmtp, first.ports.smtp

    def received(self, user: str) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", self.second.ports.pop3), timeout=30) as connection:
            return retrieve(Exchange(connection.sendall, connection.makefile("rb").readline), user)

    def stop(self) -> None:
        self.lab.stop()
