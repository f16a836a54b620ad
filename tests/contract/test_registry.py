"""The contract of the registrations on a real ledger: an ordered log that any node can replay (I8)."""

import threading
import uuid

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from store.claim import ClaimTable
from store.keys import Keys
from store.ledger import Ledger
from store.registry import Registry

VERBS = ("add", "restore", "delete", "lock", "unlock")


@pytest.fixture
def ledger(ledger_url):
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


@pytest.fixture
def keys():
    return Keys(str(uuid.uuid4()))


@pytest.fixture
def registry(ledger, keys):
    return Registry(ledger, keys)


def replayed(registry, version=0):
    return [(entry.domain, entry.version, entry.deleted, entry.locked) for entry in registry.changes_after(version)]


def test_an_added_domain_is_registered_with_who_and_when(registry, ledger):
    before = ledger.milliseconds()
    changed, entry = registry.register("example.com", "add", "north")
    assert changed
    assert (entry.domain, entry.who, entry.version, entry.deleted, entry.locked) == (
        "example.com", "north", 1, False, False,
    )  # fmt: skip
    assert before <= entry.when_milliseconds <= ledger.milliseconds()
    assert registry.changes_after(0) == [entry]
    assert registry.version() == 1


def test_repeating_on_another_node_is_harmless_and_says_what_it_found(registry):
    _, first = registry.register("example.com", "add", "north")
    assert registry.register("example.com", "add", "south") == (False, first)
    _, gone = registry.register("example.com", "delete", "north")
    assert registry.register("example.com", "delete", "south") == (False, gone)
    assert registry.version() == 2


@pytest.mark.parametrize("verb", ["delete", "lock", "unlock"])
def test_what_was_never_registered_cannot_be_changed(registry, verb):
    assert registry.register("example.com", verb, "north") == (False, None)
    assert registry.version() == 0


@pytest.mark.parametrize("verb", ["delete", "lock", "unlock"])
def test_what_was_deleted_cannot_be_changed(registry, verb):
    registry.register("example.com", "add", "north")
    _, tombstone = registry.register("example.com", "delete", "north")
    assert registry.register("example.com", verb, "north") == (False, tombstone)


def test_a_directory_without_a_registration_restores_it_but_never_over_a_deletion(registry):
    changed, entry = registry.register("example.com", "restore", "north")
    assert changed
    assert not entry.deleted
    assert registry.register("example.com", "restore", "south") == (False, entry)
    _, tombstone = registry.register("example.com", "delete", "north")
    assert registry.register("example.com", "restore", "south") == (False, tombstone)
    assert registry.register("example.com", "add", "south")[1].deleted is False


def test_a_lock_is_set_once_and_taken_off_once(registry):
    registry.register("example.com", "add", "north")
    changed, locked = registry.register("example.com", "lock", "north")
    assert (changed, locked.locked) == (True, True)
    assert registry.register("example.com", "lock", "south") == (False, locked)
    changed, unlocked = registry.register("example.com", "unlock", "south")
    assert (changed, unlocked.locked) == (True, False)
    assert registry.register("example.com", "unlock", "north") == (False, unlocked)


def test_a_domain_that_is_added_again_is_not_locked(registry):
    for verb in ("add", "lock", "delete", "add"):
        _, entry = registry.register("example.com", verb, "north")
    assert (entry.deleted, entry.locked) == (False, False)


@pytest.mark.invariant("I8")
def test_a_node_that_was_away_catches_up_from_any_version(registry):
    registry.register("a.example", "add", "north")
    registry.register("b.example", "add", "north")
    registry.register("a.example", "delete", "north")
    registry.register("c.example", "add", "north")
    registry.register("b.example", "lock", "north")
    everything = [
        ("a.example", 3, True, False),
        ("c.example", 4, False, False),
        ("b.example", 5, False, True),
    ]
    for version in range(7):
        assert replayed(registry, version) == [entry for entry in everything if entry[1] > version]


@pytest.mark.invariant("I8")
def test_changes_of_many_nodes_at_once_are_one_order_without_gaps(ledger, keys):
    def register(number):
        for verb in ("add", "lock", "delete"):
            Registry(ledger, keys).register(f"d{number}.example", verb, f"node{number}")

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = [version for _, version, _, _ in replayed(Registry(ledger, keys))]
    assert versions == sorted(set(versions))
    assert max(versions) == Registry(ledger, keys).version() == 24


@pytest.mark.invariant("I8")
def test_a_beat_says_that_there_is_something_new(registry, ledger, keys):
    registry.register("example.com", "add", "north")
    beat = ClaimTable(ledger, keys).beat("north~1.1", "join", "north", '{"lease": "north~1.1"}', "first")
    assert beat.registrations_version == registry.version() == 1


@pytest.mark.invariant("I8")
def test_any_history_replayed_from_anywhere_gives_the_same_table(ledger):
    class History(RuleBasedStateMachine):
        """One replica follows every change, one sleeps between its looks; a plain table says what is right."""

        def __init__(self):
            super().__init__()
            self.registry = Registry(ledger, Keys(str(uuid.uuid4())))
            self.right = {}
            self.sleepy, self.sleepy_version = {}, 0

        @rule(domain=st.sampled_from(["a.example", "b.example"]), verb=st.sampled_from(VERBS))
        def register(self, domain, verb):
            known = self.right.get(domain)  # None, "deleted", "open" or "locked"
            after = {
                "add": known if known in ("open", "locked") else "open",
                "restore": known or "open",
                "delete": "deleted" if known else None,
                "lock": "locked" if known == "open" else known,
                "unlock": "open" if known == "locked" else known,
            }[verb]
            changed, _ = self.registry.register(domain, verb, "north")
            assert changed == (after != known)
            if after:
                self.right[domain] = after

        @rule()
        def the_sleepy_node_looks(self):
            for entry in self.registry.changes_after(self.sleepy_version):
                self.sleepy[entry.domain] = state_of(entry)
                self.sleepy_version = entry.version
            assert self.sleepy == self.right

        @invariant()
        def a_new_node_sees_all(self):
            assert {entry.domain: state_of(entry) for entry in self.registry.changes_after(0)} == self.right

    History.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
    History.TestCase("runTest").runTest()


def state_of(entry):
    if entry.deleted:
        return "deleted"
    return "locked" if entry.locked else "open"
