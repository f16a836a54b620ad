"""Sockets: turns, back-pressure, time-outs."""

import os
from pathlib import Path

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import Clock, HandPool, House, factory_of, world_of

from node.pop3.server import AUTOLOGOUT_SECONDS, PIPELINED_MAX, READ_AHEAD_OCTETS, Pop3Factory
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


# A client that does not read


@pytest.mark.parametrize("with_some_data", [True, False])
def test_a_client_that_does_not_read_costs_little_and_misses_nothing(
    house: House, factory: Pop3Factory, *, with_some_data: bool
) -> None:
    for number in range(4):
        house.message(ADA, b"A: b\n\n" + b"%d" % number * 300_000)
    slow = MemoryConnection(factory, room=20_000, with_some_data=with_some_data)
    slow.send(LOGIN)
    slow.client_reads = False
    for _ in range(5):
        slow.send(b"RETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\n")
        assert held(slow) <= HELD_MAX
    assert slow.most_held <= HELD_MAX
    other = MemoryConnection(factory)
    other.send(b"CAPA\r\n")
    assert b"PIPELINING" in other.received, "one client's sloth must not hold up another"
    slow.client_reads = True
    slow.pump()
    assert slow.received.count(b"+OK 300010 octets") == 20
    assert not held(slow)


def test_a_client_that_sends_and_does_not_read_is_read_no_more(house: House, factory: Pop3Factory) -> None:
    connection = MemoryConnection(factory, size=4096, room=0)
    for _ in range(50):
        connection.send(b"CAPA\r\n" * 700)
        assert held(connection) <= HELD_MAX
    assert connection.reading_paused
    connection.room = 2**31
    connection.send(b"QUIT\r\n")
    assert connection.received.count(b"+OK capabilities") == 35_000
    assert connection.closed


def test_pipelined_long_answers_are_not_collected(house: House, factory: Pop3Factory) -> None:
    for number in range(1000):
        house.file(ADA, f"{number:04d}{'x' * 60}.eml", b"x")
    connection = MemoryConnection(factory, room=20_000)
    connection.send(LOGIN)
    connection.client_reads = False
    connection.send(b"UIDL\r\n" * 60)
    assert connection.most_held <= HELD_MAX
    connection.client_reads = True
    connection.pump()
    assert connection.received.count(b"\r\n1000 ") == 60


# Turns


def test_while_one_command_is_served_little_is_read_ahead_and_all_is_served_later(house: House) -> None:
    _, pool, connection = hand_made(house)
    house.message(ADA, b"never listed")
    connection.size = 1024
    connection.send(b"TOP 1 0\r\n")  # No such message: the listing is older. Nothing is asked.
    assert not pool.calls
    connection.send(b"QUIT\r\n")
    assert connection.closed
    house.message(ADA, b"A: b")
    pool.drain()
    factory = factory_of(world_of(house, disk=pool))
    connection = MemoryConnection(factory, size=1024)
    connection.send(LOGIN)
    pool.drain()
    connection.send(b"RETR 1\r\n" + b"NOOP\r\n" * 20_000)
    assert connection.reading_paused
    assert len(connection.protocol._lines) <= READ_AHEAD_OCTETS + 1024
    pool.drain()
    connection.pump()
    assert connection.received.count(b"+OK\r\n") == 20_000


def test_many_answers_at_once_do_not_pile_up_on_the_stack(
    house: House, factory: Pop3Factory, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = factory_of(world_of(house, store_trouble=lambda: "the share is gone"))
    connection = MemoryConnection(trouble)
    connection.send(LOGIN * 1000 + b"QUIT\r\n")
    assert connection.received.count(b"-ERR [SYS/TEMP] mail store unavailable") == 1000
    assert connection.received.endswith(b"+OK bye\r\n")
    assert "bug" not in caplog.text
    house.message(ADA, b"A: b")
    connection = MemoryConnection(factory)
    connection.send(LOGIN + b"RETR 1\r\n" * 1000 + b"QUIT\r\n")
    assert connection.received.count(b"A: b") == 1000
    assert connection.received.endswith(b"+OK bye\r\n")


def test_more_pipelined_commands_than_one_batch(factory: Pop3Factory) -> None:
    connection = MemoryConnection(factory)
    connection.send(LOGIN + b"NOOP\r\n" * (3 * PIPELINED_MAX + 1) + b"QUIT\r\n")
    assert connection.received.count(b"+OK\r\n") == 3 * PIPELINED_MAX + 1
    assert connection.closed


def test_short_messages_that_are_read_in_turn_cost_one_trip_to_the_disk(house: House) -> None:
    for text in (b"A: one", b".A: two", b"A: three", b"A: four"):
        house.message(ADA, text)
    _, pool, connection = hand_made(house)
    connection.send(b"RETR 1\r\nRETR 2\r\n")
    pool.step()
    connection.send(b"RETR 3\r\nTOP 4 0\r\n")
    assert connection.received.endswith(
        b"+OK 8 octets\r\nA: one\r\n.\r\n+OK 9 octets\r\n..A: two\r\n.\r\n+OK 10 octets\r\nA: three\r\n.\r\n"
    )
    assert len(pool.calls) == 1, "TOP asks the disk"
    pool.drain()
    assert connection.received.endswith(b"+OK top of message\r\nA: four\r\n.\r\n")


def test_a_message_that_is_gone_is_refused_in_its_turn(house: House, factory: Pop3Factory) -> None:
    house.file(ADA, "1.eml", b"A: b\n")
    house.file(ADA, "2.eml", b"A: c\n")
    connection = MemoryConnection(factory)
    connection.send(LOGIN)
    os.unlink(f"{house.find(ADA).path}/1.eml")
    connection.send(b"RETR 1\r\nTOP 1 0\r\nRETR 2\r\n")
    assert connection.received.count(b"-ERR [SYS/TEMP] the message is gone") == 2
    assert connection.received.endswith(b"A: c\r\n.\r\n")


# Time


@pytest.mark.invariant("I4")
def test_autologout_closes_without_a_word_and_removes_nothing(house: House) -> None:
    clock = Clock()
    factory = factory_of(world_of(house), clock)
    house.message(ADA, b"A: b")
    connection = MemoryConnection(factory)
    connection.send(LOGIN + b"DELE 1\r\n")
    said = connection.received
    clock.now += AUTOLOGOUT_SECONDS
    factory.autologout()
    assert not connection.closed
    clock.now += 1
    factory.autologout()
    connection.pump()
    assert connection.aborted
    assert connection.received == said
    assert len(house.uids(ADA)) == 1
    assert not claimed(factory)
    assert factory.ends == ["autologout"]


@pytest.mark.parametrize("line", [b"NOOP\r\n", b"junk\r\n", b"RETR 1\r\n"])
def test_any_command_resets_the_autologout(house: House, line: bytes) -> None:
    clock = Clock()
    factory = factory_of(world_of(house), clock)
    house.message(ADA, b"A: b")
    connection = MemoryConnection(factory)
    connection.send(LOGIN)
    for _ in range(5):
        clock.now += AUTOLOGOUT_SECONDS - 1
        factory.autologout()
        connection.send(line)
    assert not connection.closed


def test_autologout_ends_a_client_that_never_logs_in_or_never_reads_the_end(house: House) -> None:
    clock = Clock()
    factory = factory_of(world_of(house), clock)
    silent = MemoryConnection(factory)
    stuck = MemoryConnection(factory, room=5)
    stuck.client_reads = False
    stuck.send(b"QUIT\r\n")
    assert not stuck.closed
    clock.now += AUTOLOGOUT_SECONDS + 1
    factory.autologout()
    for connection in (silent, stuck):
        connection.pump()
    assert silent.aborted
    assert stuck.aborted
    assert not factory.sessions
