"""The log of registrations while it is being written: a reader never skips a change (I8)."""

import threading

import pytest

from store.ledger import Ledger
from store.registry import Registry


@pytest.fixture
def ledger(ledger_url):
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


@pytest.fixture
def registry(ledger, keys):
    return Registry(ledger, keys)


def write_during_the_next_look(registry, monkeypatch, times):
    """Other nodes change two domains between a reader's look at the order and its look at the entries."""
    ledger, numbers = registry._ledger, iter(range(times))
    real = ledger.sorted_since

    def sorted_since(key, after):
        found = real(key, after)
        number = next(numbers, None)
        if number is not None:
            registry.register(f"b{number}.example", "add", "south")
            registry.register("a.example", "unlock" if number % 2 else "lock", "south")
        return found

    monkeypatch.setattr(ledger, "sorted_since", sorted_since)


class Reader:
    """What a node's replica does: keep every change, ask for all after the last."""

    def __init__(self, registry):
        self.registry, self.version, self.domains = registry, 0, {}

    def look(self):
        for change in self.registry.changes_after(self.version):
            self.domains[change.domain] = change
            self.version = change.version


@pytest.mark.invariant("I8")
@pytest.mark.parametrize("times", [1, 2, 3, 20])
def test_changes_between_the_two_looks_of_a_reader_hide_none(registry, monkeypatch, times):
    registry.register("a.example", "add", "north")
    registry.register("z.example", "add", "north")
    write_during_the_next_look(registry, monkeypatch, times)
    reader = Reader(registry)
    for _ in range(times + 1):
        reader.look()
        behind = registry.version() > reader.version
        missed = {entry.domain for entry in registry.changes_after(0)} - set(reader.domains)
        assert behind or not missed
    assert reader.version == registry.version()
    assert reader.domains == {entry.domain: entry for entry in registry.changes_after(0)}
    assert len(reader.domains) == times + 2


@pytest.mark.invariant("I8")
def test_one_change_during_a_look_leaves_no_domain_out_of_it(registry, monkeypatch):
    registry.register("a.example", "add", "north")
    write_during_the_next_look(registry, monkeypatch, 1)
    assert [entry.domain for entry in registry.changes_after(0)] == ["b0.example", "a.example"]


@pytest.mark.invariant("I8")
def test_a_reader_beside_many_writers_has_everything_in_the_end(registry, ledger, keys):
    def write(number):
        own = Registry(ledger, keys)
        for turn in range(25):
            own.register(f"d{number}-{turn}.example", "add", "south")
            own.register("busy.example", "lock" if turn % 2 else "unlock", "south")

    registry.register("busy.example", "add", "north")
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    reader = Reader(registry)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        reader.look()
    reader.look()
    assert reader.version == registry.version()
    assert len(reader.domains) == 4 * 25 + 1
    assert reader.domains == {entry.domain: entry for entry in Registry(ledger, keys).changes_after(0)}


def test_a_log_at_rest_is_read_once(registry, monkeypatch):
    registry.register("a.example", "add", "north")
    looks = []
    real = registry._ledger.sorted_since
    monkeypatch.setattr(registry._ledger, "sorted_since", lambda *asked: looks.append(asked) or real(*asked))
    assert len(registry.changes_after(0)) == 1
    assert len(looks) == 1
