"""Connections of trusted proxies and of others, in memory: who is believed, what reaches whom, what is told."""

import asyncio
import socket
from ipaddress import ip_network
from pathlib import Path

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import Clock, House, factory_of, world_of

from node.introductions import Client
from node.pop3.server import Pop3Factory
from node.proxied import HEADER_SECONDS_MAX, KEEPALIVE, MailCaller, ProxiedPop3, Proxies
from store import credential

ADA = "ada@example.org"
LOGIN = b"USER ada@example.org\r\nPASS lovelace\r\n"
HEADER = b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 110\r\n"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
PEER = "192.0.2.7"  # MemoryConnection's.


class FakeSocket:
    def __init__(self) -> None:
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)


class Connection(MemoryConnection):
    """A connection whose transport has a socket."""

    def __init__(self, factory: ProxiedPop3, size: int = 1_000_000) -> None:
        self.socket = FakeSocket()
        super().__init__(factory, size)

    def getHandle(self) -> FakeSocket:  # noqa: N802
        return self.socket


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pop3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pop3Factory:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    house = House.build(str(tmp_path))
    house.mailbox(ADA, "lovelace")
    return factory_of(world_of(house))


@pytest.fixture
def proxies(clock: Clock) -> Proxies:
    return Proxies((ip_network("192.0.2.0/24"), ip_network("fd00::/8")), clock)


@pytest.fixture
def ports(proxies: Proxies, pop3: Pop3Factory) -> ProxiedPop3:
    return ProxiedPop3(proxies, pop3)


@pytest.fixture
def strangers(pop3: Pop3Factory) -> ProxiedPop3:
    """Ports at which MemoryConnection's address is nobody's proxy."""
    return ProxiedPop3(Proxies((ip_network("10.0.0.0/8"),)), pop3)


def test_addresses_and_networks_of_both_families_are_trusted_and_nobody_else(proxies: Proxies) -> None:
    assert [
        host for host in ("192.0.2.1", "192.0.3.1", "fd00::1", "2001:db8::1", "", "local") if proxies.include(host)
    ] == [
        "192.0.2.1",
        "fd00::1",
    ]
    assert not Proxies(()).include("127.0.0.1")


# POP3


@pytest.mark.parametrize("size", [1, 2, 3, 7, 44, 45, 1000])
def test_a_session_behind_a_proxy_is_its_clients(
    ports: ProxiedPop3, pop3: Pop3Factory, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    caplog.set_level("INFO")
    connection = Connection(ports, size)
    assert connection.received == b"", "it greeted before it knew who is there"
    connection.send(HEADER + LOGIN + b"QUIT\r\n")
    assert connection.received.count(b"+OK") == 4
    assert "session node=n1 peer=203.0.113.9 user=ada@example.org end=quit commands=3" in caplog.text
    assert pop3.ends == ["quit"]


def test_pop3_gets_the_transport_itself(ports: ProxiedPop3, pop3: Pop3Factory) -> None:
    connection = Connection(ports)
    connection.send(HEADER)
    assert connection.received == b"+OK Mailroot ready\r\n"
    assert [session.transport for session in pop3.sessions] == [connection]
    assert connection.protocol in pop3.sessions, "something stands between POP3 and its transport"
    connection.drop()
    assert not pop3.sessions


def test_a_proxy_that_speaks_for_itself_is_served_as_the_peer_that_it_is(
    ports: ProxiedPop3, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    connection = Connection(ports)
    connection.send(LOCAL + b"CAPA\r\nQUIT\r\n")
    assert connection.received.endswith(b"+OK bye\r\n")
    assert f"session node=n1 peer={PEER} " in caplog.text


@pytest.mark.parametrize("said", [b"", b"PROXY TC", HEADER, LOCAL, b"PROXY UNKNOWN\r\n"])
def test_a_check_leaves_no_line_and_counts_as_no_session(
    ports: ProxiedPop3, pop3: Pop3Factory, proxies: Proxies, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    caplog.set_level("INFO")
    connection = Connection(ports)
    connection.send(said)
    connection.drop()
    assert caplog.text == ""
    assert pop3.ends == []
    assert not pop3.sessions
    assert not proxies.awaited


def test_the_same_from_a_stranger_is_a_session(
    strangers: ProxiedPop3, pop3: Pop3Factory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    connection = Connection(strangers)
    connection.drop()
    assert f"session node=n1 peer={PEER} " in caplog.text
    assert pop3.ends == ["lost"]
    assert connection.socket.options == [], "a telephone in a tunnel is no proxy that was cut off"


@pytest.mark.parametrize("header", [HEADER, LOCAL])
def test_a_strangers_header_is_an_unknown_command_and_believed_by_nobody(
    strangers: ProxiedPop3, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    caplog.set_level("INFO")
    connection = Connection(strangers)
    connection.send(header + b"NOOP\r\n")
    assert connection.received.split(b"\r\n")[1].startswith(b"-ERR")
    connection.drop()
    assert f"peer={PEER} " in caplog.text
    assert "203.0.113.9" not in caplog.text


@pytest.mark.parametrize("garbage", [LOGIN, b"PROXY x\r\n", b"PROXY " + b"x" * 200])
def test_garbage_is_cut_off_and_told_without_repeating_it(
    ports: ProxiedPop3, proxies: Proxies, pop3: Pop3Factory, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    connection = Connection(ports)
    connection.send(garbage)
    connection.pump()
    assert connection.aborted
    assert connection.received == b""
    (line,) = caplog.messages
    assert line.startswith(f"proxy_refused port=pop3 peer={PEER} detail=")
    assert "send-proxy-v2" in line
    assert "lovelace" not in line
    assert not proxies.awaited
    assert pop3.ends == []


def test_a_header_that_does_not_come_is_waited_for_for_a_while(
    ports: ProxiedPop3, proxies: Proxies, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    silent, trickling, quick = Connection(ports), Connection(ports), Connection(ports)
    quick.send(HEADER)
    for octet in HEADER[:20]:
        trickling.send(bytes([octet]))
        clock.now += HEADER_SECONDS_MAX / 20
        proxies.end_late()
    assert not silent.aborted
    clock.now += 1
    proxies.end_late()
    assert (silent.aborted, trickling.aborted, quick.aborted) == (True, True, False)
    assert [line.partition(" port=")[0] for line in caplog.messages] == ["proxy_refused"] * 2
    assert "no whole PROXY header within 5 s" in caplog.text


def test_a_proxys_connection_is_probed_by_the_kernel(ports: ProxiedPop3) -> None:
    assert Connection(ports).socket.options == list(KEEPALIVE)


def test_the_kernel_takes_the_probes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        for option in KEEPALIVE:
            client.setsockopt(*option)
        assert all(client.getsockopt(level, option) == value for level, option, value in KEEPALIVE)


# LMTP and SMTP


class Server(asyncio.Protocol):
    """What stands for aiosmtpd."""

    def __init__(self, client: Client | None) -> None:
        self.client = client
        self.heard = b""

    def connection_made(self, transport) -> None:
        assert transport.protocol is self, "it would not hear what comes next"

    def data_received(self, data: bytes) -> None:
        self.heard += data


class FakeTransport:
    def __init__(self, peer: str) -> None:
        self.socket = FakeSocket()
        self.aborted = False
        self._extra = {"peername": (peer, 40000), "socket": self.socket}
        self.get_extra_info = self._extra.get

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def say(self, data: bytes, size: int) -> None:
        for at in range(0, len(data), size):
            self.protocol.data_received(data[at : at + size])


def called(proxies: Proxies, peer: str) -> FakeTransport:
    transport = FakeTransport(peer)
    transport.set_protocol(MailCaller(proxies, "lmtp", Server))
    transport.protocol.connection_made(transport)
    return transport


@pytest.mark.parametrize("size", [1, 2, 3, 44, 45, 1000])
def test_mail_behind_a_proxy_is_its_clients(proxies: Proxies, size: int) -> None:
    transport = called(proxies, PEER)
    assert isinstance(transport.protocol, MailCaller)
    transport.say(HEADER + b"LHLO there\r\n", size)
    assert isinstance(transport.protocol, Server)
    assert transport.protocol.client == ("203.0.113.9", 40000)
    assert transport.protocol.heard == b"LHLO there\r\n"
    assert transport.socket.options == list(KEEPALIVE)
    assert not proxies.awaited


@pytest.mark.parametrize(("peer", "said"), [(PEER, LOCAL), ("203.0.113.1", b"")])
def test_without_a_client_the_peer_is_the_client(proxies: Proxies, peer: str, said: bytes) -> None:
    transport = called(proxies, peer)
    transport.say(said + b"PROXY x\r\n", 1000)
    assert transport.protocol.client is None
    assert transport.protocol.heard == b"PROXY x\r\n"


def test_mail_without_a_header_is_cut_off(proxies: Proxies, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    garbage, silent = called(proxies, PEER), called(proxies, "fd00::1")
    garbage.say(b"LHLO there\r\n", 1000)
    assert garbage.aborted
    clock.now += HEADER_SECONDS_MAX + 1
    proxies.end_late()
    assert silent.aborted
    assert [line.partition(" detail=")[0] for line in caplog.messages] == [
        f"proxy_refused port=lmtp peer={PEER}",
        "proxy_refused port=lmtp peer=fd00::1",
    ]


def test_a_check_of_mail_leaves_no_line(proxies: Proxies, caplog: pytest.LogCaptureFixture) -> None:
    transport = called(proxies, PEER)
    transport.protocol.connection_lost(None)
    stranger = called(proxies, "203.0.113.1")
    assert isinstance(stranger.protocol, Server)
    assert caplog.text == ""
    assert not proxies.awaited
