"""Replicas through any sequence of changes, absences and losses: they agree in the end, and no mail's domain is lost."""

import itertools
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import GUID
from test_replica import Stage
from twisted.internet.defer import Deferred

from node import config
from node.admin import Admin
from node.replica import RECONCILE_SECONDS, Replica
from store import identity
from store.claim import Beat
from store.domain import MailStore
from store.errors import Missing, StoreError
from store.ledger import Ledger
from store.names import NameSource

DOMAINS = ("a.example", "b.example")
STEPS = st.tuples(
    st.sampled_from(
        ["add", "delete", "lock", "unlock", "beat", "cut off", "wipe", "unmount", "mount", "by hand", "late"]
    ),
    st.sampled_from(DOMAINS),
    st.integers(0, 1),
)


MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_epochs = itertools.count()


class History(Stage):
    """Two nodes, one ledger, one store; and what an administrator did to both."""

    def __init__(self, ledger_url: str, directory: str) -> None:
        root = Path(directory, "mailroot")
        root.mkdir()
        identity.found(str(root), GUID, "encrypted_file")
        super().__init__(Ledger(ledger_url), MailStore(str(root), identity.load(str(root)).store_id, NameSource()))
        self.admin = Admin(
            config.parse(f'guid: {GUID}\nmail_store: {root}\nredis: {ledger_url}\nlmtp: {{listen: ["127.0.0.1:24"]}}\n')
        )
        self.nodes = [self.replica, self.another()]
        self.there: dict[str, bool] = {}  # The domains that exist, each with its lock.
        self.mounted = True

    def remount(self, *, mounted: bool) -> None:
        root = Path(self.store.root)
        away = root.with_name("away")
        if mounted and not self.mounted:
            root.rmdir()
            away.rename(root)
        elif self.mounted and not mounted:
            root.rename(away)
            root.mkdir()
        self.mounted = mounted

    def beat(self) -> Beat:
        return self.table.beat("n1~a.1", "join", "n1", '{"lease": "n1~a.1"}', f"epoch{next(_epochs)}")

    def administer(self, verb: str, domain: str) -> None:
        """Repeat what a person would type; without the marker in sight it is refused."""
        with suppress(Missing) if self.mounted else pytest.raises(StoreError):
            if verb == "add":
                self.admin.add_domain(domain)
                self.there.setdefault(domain, False)
            elif verb == "delete":
                self.admin.delete_domain(domain, lambda _: True, lambda _: None)
                self.there.pop(domain, None)
            else:
                self.admin.set_lock(domain, locked=verb == "lock")
                self.there[domain] = verb == "lock"

    def make_by_hand(self, domain: str) -> None:
        """Make a directory that nobody registered. One made over a deletion would wait for an administrator."""
        if self.mounted and domain not in {registration.domain for registration in self.registry.changes_after(0)}:
            self.store.add_domain(domain)
            self.there.setdefault(domain, False)

    def step(self, verb: str, domain: str, node: int) -> None:
        if verb == "beat":
            self.follow(replica=self.nodes[node])
        elif verb == "cut off":
            Deferred.fromCoroutine(self.nodes[node].follow(None))
            assert self.nodes[node].trouble is not None
        elif verb == "wipe":
            self.wipe()
        elif verb in ("mount", "unmount"):
            self.remount(mounted=verb == "mount")
        elif verb == "by hand":
            self.make_by_hand(domain)
        elif verb == "late":
            self.clock.now += RECONCILE_SECONDS + 1
        else:
            self.administer(verb, domain)

    def wipe(self) -> None:
        for key in self.ledger._redis.scan_iter(f"mailroot:{{{self.store.store_id}}}:*"):
            self.ledger._redis.delete(key)

    def close(self) -> None:
        self.wipe()
        self.ledger.close()
        self.admin._ledger.close()

    def settle(self) -> None:
        """Everything is there again, and each node beats twice: the first may write what the second reads."""
        self.remount(mounted=True)
        self.clock.now += RECONCILE_SECONDS + 1
        for replica in self.nodes * 2:
            self.follow(replica=replica)


def facts(replica: Replica) -> dict[str, bool]:
    return {domain: replica.is_locked(domain) for domain in replica.domains}


@pytest.mark.invariant("I8")
@MANY
@given(steps=st.lists(STEPS, max_size=30))
@example(steps=[(verb, "a.example", 0) for verb in ("add", "lock", "wipe", "add")])
@example(steps=[(verb, "a.example", 0) for verb in ("add", "lock", "beat", "wipe", "add", "beat")])
def test_in_the_end_every_node_knows_what_the_administrator_did(ledger_url: str, steps: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        history = History(ledger_url, directory)
        for step in steps:
            history.step(*step)
        history.settle()
        assert [facts(node) for node in history.nodes] == [history.there, history.there]
        assert history.registered() == history.there
        assert [node.trouble for node in history.nodes] == [None, None]
        assert {node.version for node in history.nodes} == {history.registry.version()}
        history.close()


@pytest.mark.invariant("I9")
@MANY
@given(steps=st.lists(STEPS.filter(lambda step: step[0] != "delete"), max_size=20))
def test_no_node_ever_unlearns_a_domain_that_nobody_deleted(ledger_url: str, steps: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        history = History(ledger_url, directory)
        known: list[set[str]] = [set(), set()]
        for step in steps:
            history.step(*step)
            for number, node in enumerate(history.nodes):
                assert known[number] <= set(node.domains), step
                known[number] |= set(node.domains)
        history.close()
