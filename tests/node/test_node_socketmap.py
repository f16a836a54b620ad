"""The socketmap in memory: Postfix's questions in any pieces, answers in turn, and limits."""

import re
from pathlib import Path

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import Clock, HandPool, House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node import socketmap
from node.pools import InlinePool, Pool
from node.recipients import Recipients
from node.socketmap import IDLE_SECONDS, PIPELINED_MAX, REQUEST_OCTETS_MAX, SocketmapFactory
from store import credential
from store.errors import Unavailable

NETSTRING = re.compile(rb"(\d+):")
TEMP = re.compile(rb"TEMP mail store unavailable, try again later \(ref [0-9a-f]{4}\)")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    made = House.build(str(tmp_path))
    made.mailbox("ada@example.org", "lovelace")
    made.alias("postmaster@example.org", "ada@example.org")
    return made


def factory_of(house: House, disk: Pool | None = None, **changes: object) -> SocketmapFactory:
    facts: dict[str, object] = {
        "accepts": lambda domain: domain == "example.org",
        "is_complete": lambda: True,
        "store_trouble": lambda: None,
    }
    recipients = Recipients(disk=disk or InlinePool(), store=house.store, **(facts | changes))
    return SocketmapFactory(recipients, clock=Clock())


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


def replies(connection: MemoryConnection) -> list[bytes]:
    found, rest = [], connection.received
    while rest:
        head = NETSTRING.match(rest)
        assert head, rest
        end = head.end() + int(head[1])
        assert rest[end : end + 1] == b","
        found.append(rest[head.end() : end])
        rest = rest[end + 1 :]
    return found


def ask(factory: SocketmapFactory, *questions: bytes, size: int = 2**31) -> list[bytes]:
    connection = MemoryConnection(factory, size)
    connection.send(b"".join(map(netstring, questions)))
    return replies(connection)


def test_postfix_asks_and_is_answered(house: House) -> None:
    assert ask(
        factory_of(house),
        b"domains example.org",
        b"domains EXAMPLE.org",
        b"domains unknown.example",
        b"mailboxes ada@example.org",
        b"mailboxes Postmaster@Example.Org",
        b"mailboxes nobody@example.org",
        b"mailboxes ada@unknown.example",
    ) == [
        b"OK example.org",
        b"OK EXAMPLE.org",
        b"NOTFOUND ",
        b"OK ada@example.org",
        b"OK Postmaster@Example.Org",
        b"NOTFOUND ",
        b"NOTFOUND ",
    ]


@pytest.mark.parametrize("key", [b"@example.org", b"ada", b"", b"ada@", b"a b@example.org", b"\xff@example.org"])
def test_other_forms_of_keys_are_not_found(house: House, key: bytes) -> None:
    assert ask(factory_of(house), b"mailboxes " + key, b"domains " + key) == [b"NOTFOUND ", b"NOTFOUND "]


@pytest.mark.parametrize("question", [b"", b"domains", b"users ada@example.org", b" ", b"DOMAINS example.org"])
def test_a_wrong_map_is_told(house: House, question: bytes) -> None:
    (reply,) = ask(factory_of(house), question)
    assert reply in (b"PERM no such map; there are: domains, mailboxes", b"NOTFOUND ")
    assert (reply == b"NOTFOUND ") == (question == b"domains"), "the map is right, the key is empty"


@pytest.mark.invariant("I9")
def test_what_cannot_be_told_is_temporary(house: House) -> None:
    away = factory_of(house, store_trouble=lambda: "no marker")
    unread = factory_of(house, is_complete=lambda: False)
    assert TEMP.fullmatch(ask(away, b"mailboxes ada@example.org")[0])
    assert TEMP.fullmatch(ask(away, b"mailboxes nobody@example.org")[0])
    assert TEMP.fullmatch(ask(unread, b"domains unknown.example")[0])
    assert TEMP.fullmatch(ask(unread, b"mailboxes ada@unknown.example")[0])
    assert ask(away, b"domains example.org") == [b"OK example.org"]


def test_a_bug_is_temporary_too(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def bug(_domain: str) -> bool:
        raise ZeroDivisionError

    first, second = ask(factory_of(house, accepts=bug), b"domains example.org", b"domains ..")
    assert re.fullmatch(rb"TEMP internal failure, try again later \(ref [0-9a-f]{4}\)", first)
    assert second == b"NOTFOUND "
    assert "ZeroDivisionError" in caplog.text


def test_answers_come_in_the_order_of_the_questions(house: House) -> None:
    """The second needs no disk, and waits for the first, which does."""
    pool = HandPool()
    connection = MemoryConnection(factory_of(house, pool))
    connection.send(netstring(b"mailboxes ada@example.org") + netstring(b"domains unknown.example"))
    assert replies(connection) == []
    pool.step()
    connection.pump()
    assert replies(connection) == [b"OK ada@example.org", b"NOTFOUND "]


QUESTIONS = st.lists(
    st.sampled_from(
        [b"domains example.org", b"domains x", b"mailboxes ada@example.org", b"mailboxes b@example.org", b"", b"x y"]
    ),
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=QUESTIONS, size=st.integers(1, 70))
def test_any_pieces_give_the_same_answers(house: House, questions: list[bytes], size: int) -> None:
    assert ask(factory_of(house), *questions, size=size) == [
        reply for question in questions for reply in ask(factory_of(house), question)
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200), size=st.integers(1, 70))
def test_any_noise_is_answered_or_cut_off(house: House, noise: bytes, size: int) -> None:
    factory = factory_of(house)
    connection = MemoryConnection(factory, size)
    connection.send(noise)
    replies(connection)
    connection.drop()
    assert not factory.connections


# Limits


def test_an_address_as_long_as_postfix_reads_is_not_found(house: House) -> None:
    assert ask(factory_of(house), b"mailboxes " + b"a" * 2048 + b"@example.org") == [b"NOTFOUND "]


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"PROXY TCP4 1 2 3 4\r\n", b"%d:x" % (REQUEST_OCTETS_MAX + 1), b"1:xx"]
)
def test_what_is_no_netstring_is_cut_off(house: House, garbage: bytes) -> None:
    connection = MemoryConnection(factory_of(house))
    connection.send(garbage)
    assert connection.closed
    assert connection.aborted


def test_more_questions_than_may_wait_are_cut_off(house: House) -> None:
    pool = HandPool()
    factory = factory_of(house, pool)
    connection = MemoryConnection(factory)
    connection.send(netstring(b"mailboxes ada@example.org") * (PIPELINED_MAX + 1))
    assert not connection.closed, "one is looked up, the others wait"
    connection.send(netstring(b"mailboxes ada@example.org") * 20_000)
    assert connection.closed
    pool.drain()
    assert connection.received == b""
    assert not factory.connections


def test_who_reads_no_answers_is_cut_off(house: House) -> None:
    connection = MemoryConnection(factory_of(house), room=0)
    connection.client_reads = False
    for _ in range(20_000):
        connection.send(netstring(b"domains example.org"))
    assert connection.closed
    assert connection.most_held < 2 * 65_536


def test_too_many_connections_are_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketmap, "CONNECTIONS_MAX", 2)
    factory = factory_of(house)
    first, _, third = (MemoryConnection(factory) for _ in range(3))
    assert third.closed
    first.drop()
    assert ask(factory, b"domains example.org") == [b"OK example.org"]


def test_a_silent_connection_is_cut_off(house: House) -> None:
    factory = factory_of(house)
    busy, silent = MemoryConnection(factory), MemoryConnection(factory)
    factory.clock.now += IDLE_SECONDS - 1
    busy.send(netstring(b"domains example.org"))
    silent.send(b"19:domains exa")  # Half a question counts for nothing.
    factory.clock.now += 2
    factory.end_idle()
    busy.pump()
    silent.pump()
    assert (busy.closed, silent.closed) == (False, True)


def test_a_stopping_node_answers_what_was_asked_and_closes(house: House) -> None:
    pool = HandPool()
    factory = factory_of(house, pool)
    idle, asking = MemoryConnection(factory), MemoryConnection(factory)
    asking.send(netstring(b"mailboxes ada@example.org"))
    factory.stop()
    idle.pump()
    assert idle.closed
    assert not asking.closed
    pool.step()
    asking.pump()
    assert replies(asking) == [b"OK ada@example.org"]
    assert asking.closed


def test_a_failing_share_and_a_lost_connection_meet(house: House) -> None:
    pool = HandPool()
    factory = factory_of(house, pool)
    connection = MemoryConnection(factory)
    connection.send(netstring(b"mailboxes ada@example.org") * 2)
    connection.drop()
    pool.fail(Unavailable("it hangs"))
    assert not pool.calls, "nobody waits for the second answer"
