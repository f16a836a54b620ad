"""Ports that close: whom the kernel has let in is served, whoever has begun nothing is waited for for a while."""

import asyncio
import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop
from dialogs.memory import House, factory_of, world_of
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred

from node import ports
from node.config import Config, parse
from node.delivery import Inbound
from node.lab import free_port
from node.pools import InlinePool
from node.ports import Ports
from node.recipients import Recipients
from store import credential

ADA = "ada@example.org"
ANSWER_SECONDS_MAX = 60.0
QUEUED = 40  # Above the connections that one turn of a loop takes by chance.


class Place:
    """Open ports on a loop that turns only while the test lets it."""

    def __init__(self, root: Path, **changes: str) -> None:
        self.pop3_port, self.lmtp_port = free_port(), free_port()
        text = f"guid: 5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b\nmail_store: {root}\nredis: redis://127.0.0.1:1/0\n"
        text += f"pop3: {{listen: ['127.0.0.1:{self.pop3_port}']}}\nlmtp: {{listen: ['127.0.0.1:{self.lmtp_port}']}}\n"
        self.config: Config = parse(text + "".join(f"{key}: {value}\n" for key, value in changes.items()))
        house = House.build(str(root))
        house.mailbox(ADA, "lovelace")
        disk = InlinePool()
        self.loop = uvloop.new_event_loop()
        self.reactor = AsyncioSelectorReactor(self.loop)
        self.pop3 = factory_of(world_of(house), self.loop.time)
        self.ports = Ports(self.config)
        recipients = Recipients(
            disk=disk,
            store=house.store,
            accepts=lambda _domain: True,
            is_complete=lambda: True,
            store_trouble=lambda: None,
        )
        inbound = Inbound(
            node="n1",
            disk=disk,
            store=house.store,
            recipients=recipients,
            count=lambda *_: None,
            observe=lambda *_: None,
        )
        self.run(self.ports.open(self.reactor, self.pop3, inbound))

    def run(self, coroutine) -> None:
        async def wait() -> None:
            await Deferred.fromCoroutine(coroutine).asFuture(self.loop)

        self.loop.run_until_complete(asyncio.wait_for(wait(), ANSWER_SECONDS_MAX))

    def hear(self, client: socket.socket, *lines: str) -> list[bytes]:
        """Say lines and hear everything up to the end."""
        said = "".join(f"{line}\r\n" for line in lines).encode()

        def talk() -> bytes:
            with client:
                client.sendall(said)
                heard = io.BytesIO()
                while data := client.recv(65536):
                    heard.write(data)
                return heard.getvalue()

        return self.loop.run_until_complete(asyncio.to_thread(talk)).splitlines()

    def close(self) -> None:
        self.run(self.ports.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.reactor.removeAll()
        self.loop.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    made = Place(tmp_path)
    yield made
    made.close()


def connect(stack: ExitStack, port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
    return stack.enter_context(client)


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_whom_the_kernel_has_let_in_is_served(place: Place) -> None:
    with ExitStack() as stack:
        # The loop does not turn: all of these wait in the kernel when the ports close.
        readers = [connect(stack, place.pop3_port) for _ in range(QUEUED)]
        senders = [connect(stack, place.lmtp_port) for _ in range(QUEUED)]
        place.run(place.ports.close())
        assert is_refused(place.pop3_port)
        assert is_refused(place.lmtp_port)
        assert not place.ports.is_empty
        for reader in readers:
            heard = place.hear(reader, f"USER {ADA}", "PASS lovelace", "QUIT")
            assert [line[:3] for line in heard] == [b"+OK"] * 4
        for sender in senders:
            assert [line[:3] for line in place.hear(sender, "QUIT")] == [b"220", b"221"]
    assert place.ports.is_empty


def test_a_client_that_is_gone_again_is_no_failure(place: Place) -> None:
    for port in (place.pop3_port, place.lmtp_port):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    place.run(place.ports.close())


def test_who_has_begun_nothing_is_ended_after_a_while(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        reader, sender = connect(stack, place.pop3_port), connect(stack, place.lmtp_port)
        place.run(place.ports.close())
        place.ports.end_silent()
        place.loop.run_until_complete(asyncio.sleep(0))
        assert len(place.pop3.sessions) == len(place.ports._mail_connections) == 1, "it was ended at once"
        monkeypatch.setattr(ports, "POP3_SILENT_SECONDS", 0.0)
        monkeypatch.setattr(ports, "MAIL_SILENT_SECONDS", 0.0)
        place.ports.end_silent()
        assert place.hear(reader) == [b"+OK Mailroot ready"]
        assert [line[:3] for line in place.hear(sender)] == [b"220", b"421"]
    assert place.ports.is_empty


def test_ports_that_never_opened_close_too(tmp_path: Path) -> None:
    text = f"guid: 5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b\nmail_store: {tmp_path}\nredis: redis://127.0.0.1:1/0\n"
    made = Ports(parse(f"{text}lmtp: {{listen: ['127.0.0.1:{free_port()}']}}\n"))
    Deferred.fromCoroutine(made.close()).addErrback(lambda failure: pytest.fail(str(failure)))
    made.end_silent()
    made.abort()
    assert made.is_empty
    for listener in made._lmtp_sockets:
        listener.close()
