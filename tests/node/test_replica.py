"""The replica of the registrations, on a real ledger: what it follows, what it restores, what it never deletes (I8)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from dialogs.memory import Clock
from twisted.internet.defer import Deferred

from node.pools import InlinePool
from node.replica import MISSING_TOLD_MAX, RECONCILE_SECONDS, Replica
from store.claim import Beat, ClaimTable
from store.domain import MailStore
from store.identity import MARKER
from store.keys import Keys
from store.ledger import Ledger
from store.registry import Registry


class Stage:
    """A replica, its ledger and its store; beats come when the test says so."""

    def __init__(self, ledger: Ledger, store: MailStore) -> None:
        self.ledger, self.store = ledger, store
        self.keys = Keys(store.store_id)
        self.registry = Registry(ledger, self.keys)
        self.table = ClaimTable(ledger, self.keys)
        self.clock = Clock()
        self.replica = self.another()

    def another(self, registry: object = None) -> Replica:
        return Replica(
            node="n1",
            registry=registry or self.registry,
            store=self.store,
            ledger_pool=InlinePool(),
            disk=InlinePool(),
            clock=self.clock,
        )

    def beat(self) -> Beat:
        return self.table.beat("n1~a.1", "join", "n1", '{"lease": "n1~a.1"}', f"epoch-{id(object())}")

    def follow(self, beat: Beat | None = None, replica: Replica | None = None) -> Replica:
        replica = replica or self.replica
        done = Deferred.fromCoroutine(replica.follow(beat or self.beat()))
        assert done.called
        done.addErrback(lambda failure: failure.raiseException())
        return replica

    def wipe(self) -> None:
        """Let the ledger lose its memory."""
        self.ledger._redis.delete(*self.ledger._redis.keys(f"mailroot:{{{self.store.store_id}}}:*"))

    def registered(self) -> dict[str, bool]:
        return {r.domain: r.locked for r in self.registry.changes_after(0) if not r.deleted}

    def add(self, *domains: str) -> None:
        for domain in domains:
            self.store.add_domain(domain)
            self.registry.register(domain, "add", "test")


@pytest.fixture
def stage(ledger_url: str, mail_store: MailStore) -> Iterator[Stage]:
    ledger = Ledger(ledger_url)
    yield Stage(ledger, mail_store)
    ledger.close()


def test_a_new_replica_knows_nothing_and_says_so(stage: Stage) -> None:
    assert stage.replica.domains == []
    assert stage.replica.trouble == "the registrations have not been read yet"


@pytest.mark.invariant("I8")
def test_a_change_is_here_with_the_next_beat(stage: Stage) -> None:
    stage.add("a.example")
    stage.follow()
    assert (stage.replica.domains, stage.replica.version, stage.replica.trouble) == (["a.example"], 1, None)
    stage.add("b.example")
    stage.registry.register("a.example", "lock", "test")
    assert not stage.replica.is_locked("a.example")
    stage.follow()
    assert stage.replica.domains == ["a.example", "b.example"]
    assert (stage.replica.is_locked("a.example"), stage.replica.is_locked("b.example")) == (True, False)
    stage.registry.register("b.example", "delete", "test")
    stage.follow()
    assert not stage.replica.accepts("b.example")
    assert stage.replica.version == 4


@pytest.mark.invariant("I8")
def test_a_node_that_was_away_catches_up(stage: Stage) -> None:
    stage.add("a.example", "b.example")
    stage.follow()
    for _ in range(3):
        stage.registry.register("a.example", "delete", "test")
        stage.registry.register("a.example", "add", "test")
    stage.registry.register("b.example", "delete", "test")
    stage.follow()
    assert (stage.replica.domains, stage.replica.version) == (["a.example"], 9)


@pytest.mark.invariant("I8")
def test_without_a_ledger_the_old_copy_stays_in_force_and_says_that_it_is_old(stage: Stage) -> None:
    stage.add("a.example")
    stage.follow()
    Deferred.fromCoroutine(stage.replica.follow(None))
    assert stage.replica.trouble == "the ledger does not answer; changes of domains are not seen"
    assert stage.replica.accepts("a.example")
    stage.follow()
    assert stage.replica.trouble is None


def test_a_ledger_that_fails_in_the_middle_changes_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.add("a.example")
    stage.follow()
    stage.add("b.example")
    beat = stage.beat()
    dead = Registry(Ledger("redis://127.0.0.1:1/0"), stage.keys)
    stage.replica._registry = dead
    stage.follow(beat)
    assert "does not answer" in stage.replica.trouble
    assert (stage.replica.domains, stage.replica.version) == (["a.example"], 1)
    stage.follow(evolve(beat, epoch="another"))
    assert (stage.replica.accepts("a.example"), stage.replica.version) == (True, 1)
    assert caplog.text.count("replica_behind") == 1
    stage.replica._registry = stage.registry
    stage.follow(beat)
    assert stage.replica.domains == ["a.example", "b.example"]


def test_a_node_that_starts_without_a_ledger_serves_the_directories(stage: Stage) -> None:
    stage.store.add_domain("a.example")
    stage.store.add_domain("b.example")
    stage.store.set_lock(stage.store.domain_path("b.example"), locked=True)
    Deferred.fromCoroutine(stage.replica.read_store())
    assert stage.replica.domains == ["a.example", "b.example"]
    assert stage.replica.is_locked("b.example")
    assert stage.replica.trouble is not None


def test_a_directory_never_brings_back_a_deleted_domain(stage: Stage) -> None:
    stage.add("a.example")
    stage.registry.register("a.example", "delete", "test")
    Deferred.fromCoroutine(stage.replica.read_store())
    stage.follow()
    assert not stage.replica.accepts("a.example")
    assert stage.registered() == {}


@pytest.mark.invariant("I7")
def test_a_wiped_ledger_is_written_again_from_the_directories(stage: Stage) -> None:
    stage.add("a.example", "b.example")
    for domain in ("a.example", "b.example"):
        stage.registry.register(domain, "lock", "test")
        stage.registry.register(domain, "unlock", "test")
    stage.store.set_lock(stage.store.domain_path("b.example"), locked=True)
    stage.registry.register("b.example", "lock", "test")
    stage.follow()
    stage.wipe()
    stage.follow()
    assert stage.registered() == {"a.example": False, "b.example": True}
    assert stage.replica.domains == ["a.example", "b.example"]
    assert stage.replica.is_locked("b.example")
    assert stage.replica.version == stage.registry.version() == 3


def test_two_nodes_that_write_it_again_at_once_agree(stage: Stage) -> None:
    stage.add("a.example", "b.example")
    other = stage.follow(replica=stage.another())
    stage.follow()
    stage.wipe()
    stage.follow()
    version = stage.registry.version()
    stage.follow(replica=other)
    assert stage.registry.version() == version
    assert other.domains == stage.replica.domains == ["a.example", "b.example"]


def test_an_older_memory_of_the_same_epoch_is_read_anew(stage: Stage) -> None:
    """A ledger restored from a snapshot: its version went back."""
    stage.add("a.example")
    beat = stage.beat()
    stage.follow(beat)
    stage.replica.version = 7
    stage.follow(beat)
    assert (stage.replica.version, stage.replica.domains) == (1, ["a.example"])


@pytest.mark.invariant("I9")
def test_a_store_that_is_not_mounted_deletes_nothing(stage: Stage) -> None:
    stage.add("a.example")
    stage.follow()
    root = Path(stage.store.root)
    root.rename(root.with_name("away"))
    root.mkdir()
    stage.wipe()
    stage.follow()
    assert "has no marker" in stage.replica.trouble
    assert stage.replica.accepts("a.example")
    assert stage.registered() == {}  # Not written again either: the empty directory is no witness.
    root.rmdir()
    root.with_name("away").rename(root)
    stage.follow()
    assert stage.replica.trouble is None
    assert stage.registered() == {"a.example": False}


@pytest.mark.invariant("I9")
def test_a_store_that_is_not_mounted_at_the_start_has_no_domains_but_the_ledgers(stage: Stage) -> None:
    stage.add("a.example")
    marker = Path(stage.store.root, MARKER)
    content = marker.read_bytes()
    marker.unlink()
    Deferred.fromCoroutine(stage.replica.read_store())
    assert "has no marker" in stage.replica.trouble
    stage.follow()
    assert "has no marker" in stage.replica.trouble
    marker.write_bytes(content)
    stage.follow()
    assert (stage.replica.trouble, stage.replica.domains) == (None, ["a.example"])


def test_a_directory_made_by_hand_is_registered_within_the_minute(stage: Stage) -> None:
    stage.follow()
    stage.store.add_domain("by-hand.example")
    stage.follow()
    assert not stage.replica.accepts("by-hand.example")
    stage.clock.now += RECONCILE_SECONDS + 1
    stage.follow()
    assert stage.registered() == {"by-hand.example": False}
    assert stage.replica.accepts("by-hand.example")


def test_how_far_a_replica_is_behind_is_told(stage: Stage) -> None:
    stage.add("a.example")
    stage.follow()
    assert stage.replica.behind == 0
    stage.add("b.example")
    stage.add("c.example")
    beat, registry = stage.beat(), stage.replica._registry
    dead = Registry(Ledger("redis://127.0.0.1:1/0"), stage.keys)
    stage.replica._registry = dead
    stage.follow(beat)
    assert stage.replica.behind == beat.registrations_version - stage.replica.version > 0
    stage.replica._registry = registry
    stage.follow(beat)
    assert stage.replica.behind == 0


def test_many_registrations_without_a_directory_are_told_in_few_words(stage: Stage) -> None:
    for number in range(MISSING_TOLD_MAX + 1):
        stage.registry.register(f"d{number}.example", "add", "n1")
    stage.follow()
    stage.clock.now += RECONCILE_SECONDS + 1
    stage.follow()
    assert len(stage.replica.missing_directories) == MISSING_TOLD_MAX


def test_a_registration_without_its_directory_is_told_and_kept(stage: Stage) -> None:
    stage.add("a.example")
    stage.follow()
    Path(stage.store.domain_path("a.example")).rmdir()
    stage.clock.now += RECONCILE_SECONDS + 1
    stage.follow()
    assert stage.replica.missing_directories == ("a.example",)
    assert stage.replica.accepts("a.example")
    assert stage.registered() == {"a.example": False}
