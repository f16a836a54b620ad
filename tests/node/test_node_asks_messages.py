"""Fetch and Remove: failures become refusals, and nothing goes without a last look at the claim."""

from pathlib import Path

import pytest
from dialogs.memory import HandPool, House, OrderedClaims, now, world_of
from twisted.internet.defer import Deferred

from node.pools import TimedOut
from node.pop3 import asks
from node.pop3.asks import Opened, Started, World
from node.pop3.session import Fetch, Open, Refusal, Remove
from store import credential, files
from store.errors import Full, LedgerUnavailable, Overloaded, Unavailable
from store.mailbox import CHUNK_OCTETS, Mailbox
from store.message import Message

ADA, KEY = "ada@example.org", "example.org/ada"
OPEN = Open(ADA, "lovelace")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    made = House.build(str(tmp_path))
    made.mailbox(ADA, "lovelace")
    return made


@pytest.fixture
def world(house: House) -> World:
    return world_of(house, claims=OrderedClaims())


def opened(world: World) -> Opened:
    outcome = now(asks.open_mailbox(world, OPEN))
    assert isinstance(outcome, Opened), outcome
    return outcome


def claimed(world: World) -> bool:
    return bool(world.claims.by_mailbox)


# Fetch


def fetched(world: World, mailbox: Opened, number: int, following: tuple[Message, ...] = ()) -> object:
    return now(asks.fetch(world, mailbox, Fetch(mailbox.snapshot.messages[number], None, following)))


def test_a_short_message_brings_the_following_along(house: House, world: World) -> None:
    for text in (b"one", b"two", b"x" * CHUNK_OCTETS, b"four"):
        house.message(ADA, text)
    mailbox = opened(world)
    assert fetched(world, mailbox, 0, mailbox.snapshot.messages[1:]) == Started(b"one\r\n", None)
    assert list(mailbox.ahead.values()) == [b"two\r\n"], "no more than CHUNK_OCTETS in one trip"
    assert fetched(world, mailbox, 1) == Started(b"two\r\n", None)
    long = fetched(world, mailbox, 2)
    assert isinstance(long, Started)
    assert long.reading is not None
    long.reading.close()


@pytest.mark.parametrize("following", [False, True])
def test_a_message_that_another_program_removed(house: House, world: World, *, following: bool) -> None:
    house.message(ADA, b"one")
    house.message(ADA, b"two")
    mailbox = opened(world)
    files.unlink(f"{mailbox.mailbox.path}/{mailbox.snapshot.messages[1].name}")
    if following:
        assert fetched(world, mailbox, 0, mailbox.snapshot.messages[1:]) == Started(b"one\r\n", None)
    refusal = fetched(world, mailbox, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "SYS/TEMP"
    assert "gone" in refusal.text


@pytest.mark.parametrize("error", [Overloaded("busy"), Full("/srv/mail"), OSError("/srv/mail")])
def test_a_fetch_that_fails_is_refused_and_the_session_goes_on(
    house: House, world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.message(ADA, b"one")
    mailbox = opened(world)

    def broken(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "read", broken)
        refusal = fetched(world, mailbox, 0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "SYS/TEMP"
    assert "/srv/mail" not in refusal.text
    assert fetched(world, mailbox, 0) == Started(b"one\r\n", None)


def test_an_adopted_file_that_grew_since_the_login_is_read_to_its_end(house: House, world: World) -> None:
    house.file(ADA, "old.eml", b"A: b\n")
    mailbox = opened(world)
    house.file(ADA, "old.eml", b"x" * 3 * CHUNK_OCTETS)
    started = fetched(world, mailbox, 0)
    assert isinstance(started, Started)
    assert started.reading is not None, "a client that takes the first chunk for the whole would remove the rest"
    octets = len(started.first)
    while chunk := started.reading.next_chunk():
        octets += len(chunk)
    assert octets == 3 * CHUNK_OCTETS + 2


def test_a_following_message_that_is_longer_than_its_name_says_is_left_for_later(house: House, world: World) -> None:
    house.message(ADA, b"one")
    house.file(ADA, "zzz.eml", b"A: b\n")
    mailbox = opened(world)
    house.file(ADA, "zzz.eml", b"x" * 1000)
    assert fetched(world, mailbox, 0, mailbox.snapshot.messages[1:]) == Started(b"one\r\n", None)
    assert mailbox.ahead == {}


# Remove


def removal(world: World, mailbox: Opened) -> object:
    return now(asks.remove(world, mailbox, Remove(mailbox.snapshot.messages)))


@pytest.mark.invariant("I5")
@pytest.mark.parametrize("how", ["broken", "lapsed", "no answer"])
def test_nothing_is_removed_where_the_claim_is_not_known_to_be_ours(house: House, world: World, how: str) -> None:
    house.message(ADA, b"one")
    mailbox = opened(world)
    if how == "broken":
        world.claims.break_claim(KEY)
    elif how == "lapsed":
        world.claims.lapsed = True
    else:
        world.claims.failure = LedgerUnavailable("gone")
    refusal = removal(world, mailbox)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "SYS/TEMP"
    assert len(house.uids(ADA)) == 1
    assert not claimed(world)


@pytest.mark.invariant("I5")
def test_a_claim_lost_between_the_last_look_and_the_disk(house: House) -> None:
    house.message(ADA, b"one")
    pool = HandPool()
    world = world_of(house)
    mailbox = opened(world)
    waiting = world_of(house, disk=pool, claims=world.claims)
    outcomes: list[object] = []
    Deferred.fromCoroutine(asks.remove(waiting, mailbox, Remove(mailbox.snapshot.messages))).addBoth(outcomes.append)
    world.claims.break_claim(KEY)
    pool.drain()
    assert isinstance(outcomes[0], Refusal)
    assert "nothing was removed" in outcomes[0].text
    assert len(house.uids(ADA)) == 1


def test_nothing_marked_nothing_asked(house: House, world: World) -> None:
    house.message(ADA, b"one")
    mailbox = opened(world)
    assert now(asks.remove(world, mailbox, Remove(()))) == 0
    assert "confirm" not in world.claims.done
    assert not claimed(world)
    assert len(house.uids(ADA)) == 1


def test_a_removal_gives_the_claim_back_and_counts_what_is_left(
    house: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.message(ADA, b"one")
    house.message(ADA, b"two")
    mailbox = opened(world)
    unlink = files.unlink

    def sticky(path: str) -> bool:
        if path.endswith(mailbox.snapshot.messages[0].name):
            raise Unavailable("read-only")
        return unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "unlink", sticky)
        assert removal(world, mailbox) == 1
    assert len(house.uids(ADA)) == 1
    assert not claimed(world)


@pytest.mark.invariant("I5")
def test_a_removal_that_timed_out_keeps_the_claim_until_its_thread_is_done(house: House) -> None:
    house.message(ADA, b"one")
    pool = HandPool()
    world = world_of(house)
    mailbox = opened(world)
    waiting = world_of(house, disk=pool, claims=world.claims)
    outcomes: list[object] = []
    Deferred.fromCoroutine(asks.remove(waiting, mailbox, Remove(mailbox.snapshot.messages))).addBoth(outcomes.append)
    finished: Deferred[None] = Deferred()
    pool.fail(TimedOut("the share hangs", finished))
    assert isinstance(outcomes[0], Refusal)
    assert claimed(world), "the thread may wake up and go on"
    finished.callback(None)
    assert not claimed(world)


def test_litter_is_swept_on_the_way_out_and_its_failure_is_told(
    house: House, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open(f"{house.find(ADA).path}/.tmp-abc", "wb"):
        pass
    mailbox = opened(world)
    assert mailbox.has_litter
    swept: list[str] = []
    monkeypatch.setattr(Mailbox, "sweep", lambda self, _names: swept.append(self.key))
    now(asks.close(world, mailbox))
    assert swept == [KEY]

    def broken(*_arguments: object) -> None:
        raise Unavailable("the share hangs")

    monkeypatch.setattr(Mailbox, "sweep", broken)
    now(asks.close(world, opened(world)))
    assert "sweep_failed" in caplog.text
