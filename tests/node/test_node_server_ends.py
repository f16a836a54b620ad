"""How connections end: broken, half closed, in the middle of anything; and what is not in the log."""

import logging
from pathlib import Path

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import HandPool, House, factory_of, world_of
from twisted.internet.error import ConnectionLost as NoConnection

from node.pop3 import server
from node.pop3.server import Pop3Factory
from store import credential

ADA = "ada@example.org"
LOGIN = b"USER ada@example.org\r\nPASS lovelace\r\n"
HELD_MAX = 256 * 1024


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    made = House.build(str(tmp_path))
    made.mailbox(ADA, "lovelace")
    return made


@pytest.fixture
def factory(house: House) -> Pop3Factory:
    return factory_of(world_of(house))


def held(connection: MemoryConnection) -> int:
    """What the node holds for a client: not yet sent, and not yet served."""
    return len(connection.buffer) + len(connection.protocol._lines)


def claimed(factory: Pop3Factory) -> bool:
    return bool(factory.world.claims.by_mailbox)


def replies(connection: MemoryConnection) -> list[bytes]:
    return connection.received.split(b"\r\n")[1:-1]


def hand_made(house: House) -> tuple[Pop3Factory, HandPool, MemoryConnection]:
    """A session that is logged in and whose disk now waits for the test's hand."""
    pool = HandPool()
    factory = factory_of(world_of(house, disk=pool))
    connection = MemoryConnection(factory)
    connection.send(LOGIN)
    pool.drain()
    return factory, pool, connection


# Ends


def test_a_connection_that_breaks_while_the_claim_is_taken_drops_it(house: House) -> None:
    pool = HandPool()
    factory = factory_of(world_of(house, disk=pool))
    connection = MemoryConnection(factory)
    connection.send(LOGIN)
    connection.drop()
    pool.drain()
    assert not claimed(factory)
    assert not factory.sessions
    assert factory.ends == ["lost"]


@pytest.mark.invariant("I4")
@pytest.mark.parametrize("chunks_read", [0, 1, 2])
def test_a_connection_that_breaks_during_a_retrieval_drops_the_claim(house: House, chunks_read: int) -> None:
    house.message(ADA, b"x" * 500_000)
    factory, pool, connection = hand_made(house)
    connection.send(b"DELE 1\r\nRSET\r\nRETR 1\r\n")
    for _ in range(chunks_read):
        pool.step()
    assert claimed(factory)
    connection.drop()
    pool.drain()
    assert not claimed(factory)
    assert len(house.uids(ADA)) == 1


def test_a_connection_that_breaks_while_the_client_is_waited_for_drops_the_claim(
    house: House, factory: Pop3Factory
) -> None:
    house.message(ADA, b"x" * 500_000)
    connection = MemoryConnection(factory, room=10_000)
    connection.send(LOGIN)
    connection.client_reads = False
    connection.send(b"RETR 1\r\n")
    assert claimed(factory)
    connection.drop()
    assert not claimed(factory)


def test_a_removal_that_has_begun_is_finished_though_the_client_is_gone(house: House) -> None:
    house.message(ADA, b"A: b")
    factory, pool, connection = hand_made(house)
    connection.send(b"DELE 1\r\nQUIT\r\n")
    connection.drop()
    pool.drain()
    assert house.uids(ADA) == []
    assert not claimed(factory)


def test_a_half_closed_connection_gets_all_its_answers(house: House, factory: Pop3Factory) -> None:
    house.message(ADA, b"x" * 200_000)
    connection = MemoryConnection(factory, room=1000)
    connection.client_reads = False
    connection.send(LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    connection.half()
    assert not connection.closed
    connection.client_reads = True
    connection.pump()
    assert connection.received.endswith(b"+OK bye\r\n")
    assert connection.closed
    assert house.uids(ADA) == []


@pytest.mark.invariant("I4")
def test_a_message_that_breaks_off_breaks_the_connection(house: House) -> None:
    house.message(ADA, b"x" * 500_000)
    factory, pool, connection = hand_made(house)
    connection.send(b"RETR 1\r\nCAPA\r\nDELE 1\r\nQUIT\r\n")
    pool.step()
    pool.fail(OSError("the disk is gone"))
    pool.drain()
    assert connection.aborted
    assert connection.received.endswith(b"x"), "nothing may look like the end of the message"
    connection.pump()
    assert factory.ends == ["broken"]
    assert not claimed(factory)
    assert len(house.uids(ADA)) == 1, "what the client has not got must not be removed"


def test_a_full_house_says_so(factory: Pop3Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SESSIONS_MAX", 1)
    MemoryConnection(factory)
    second = MemoryConnection(factory)
    assert second.received.startswith(b"-ERR [SYS/TEMP] too many connections")
    assert second.closed
    assert len(factory.sessions) == 1


def test_a_node_that_stops_ends_those_who_have_not_logged_in(factory: Pop3Factory) -> None:
    stranger, ada = MemoryConnection(factory), MemoryConnection(factory)
    ada.send(LOGIN)
    factory.stop_greeting()
    stranger.pump()
    assert stranger.closed
    ada.send(b"NOOP\r\n")
    assert replies(ada)[-1] == b"+OK"


def test_a_bug_ends_the_session_and_is_told(
    house: House, factory: Pop3Factory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.asks, "fetch", broken)
    house.message(ADA, b"A: b")
    connection = MemoryConnection(factory)
    connection.send(LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    connection.pump()
    assert connection.aborted
    assert not claimed(factory)
    assert len(house.uids(ADA)) == 1
    assert factory.ends == ["bug"]
    assert "session_bug" in caplog.text


def test_writing_to_a_connection_that_is_lost_is_no_failure(house: House, factory: Pop3Factory) -> None:
    connection = MemoryConnection(factory)
    connection.protocol._send_now = lambda _data: NoConnection()
    connection.send(b"CAPA\r\n")
    connection.drop()
    assert factory.ends == ["lost"]


# Secrets


@pytest.mark.invariant("I10")
def test_no_log_line_ever_holds_a_password(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = b"s3cr3t-lovelace"
    encoded = b"AGFkYUBleGFtcGxlLm9yZwBzM2NyM3QtbG92ZWxhY2U="
    for changes in ({}, {"store_trouble": lambda: "gone"}, {"authenticator": object()}):
        factory = factory_of(world_of(house, **changes))
        for text in (
            b"USER ada@example.org\r\nPASS " + secret + b"\r\n",
            b"AUTH PLAIN " + encoded + b"\r\n",
            b"AUTH PLAIN\r\n" + encoded + b"\r\n",
            b"PASS " + secret + b"\0\r\n",
            b"PASS " + secret * 30 + b"\r\n",
        ):
            connection = MemoryConnection(factory)
            connection.send(text)
            connection.drop()
    assert "ada@example.org" in caplog.text
    assert "AttributeError" in caplog.text, "the bug was told"
    assert secret.decode() not in caplog.text
    assert encoded.decode() not in caplog.text
