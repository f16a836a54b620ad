"""Two nodes and one ledger, for the contract of the claims."""

import json
import uuid

import pytest
import redis

from store import claim
from store.claim import ClaimRequest, ClaimTable, lease_id
from store.keys import Keys
from store.ledger import Ledger


class Node:
    """One life of a node, as far as the claims see it."""

    def __init__(self, table, name, life="1"):
        self.table, self.name = table, name
        self.lease = lease_id(name, f"{life}.1")

    def join(self, mode="join", epoch="first"):
        facts = json.dumps({"lease": self.lease, "port": 110})
        return self.table.beat(self.lease, mode, self.name, facts, epoch)

    def renew(self):
        return self.join("renew")

    def ask(self, operation, mailbox, token):
        (answer,) = self.table.exchange(self.lease, [ClaimRequest(operation, mailbox, token)])
        return answer

    def take(self, mailbox, token=1):
        return self.ask("take", mailbox, token)

    def confirm(self, mailbox, token=1):
        return self.ask("confirm", mailbox, token)

    def drop(self, mailbox, token=1):
        return self.ask("drop", mailbox, token)


@pytest.fixture
def keys():
    return Keys(str(uuid.uuid4()))


@pytest.fixture
def administrator(ledger_url):
    with redis.Redis.from_url(ledger_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def table(ledger_url, keys, monkeypatch):
    """The claims of a ledger that is old enough to grant them at once."""
    monkeypatch.setattr(claim, "GRACE_SECONDS", 0)
    ledger = Ledger(ledger_url)
    yield ClaimTable(ledger, keys)
    ledger.close()


@pytest.fixture
def north(table):
    node = Node(table, "north")
    assert node.join().state == "ok"
    return node


@pytest.fixture
def south(table):
    node = Node(table, "south")
    assert node.join().state == "ok"
    return node


@pytest.fixture
def memory_is_lost(administrator, keys):
    def lose():
        names = ("epoch", "leases", "nodes", "claims", "broken")
        administrator.delete(*(getattr(keys, name) for name in names))

    return lose
