"""Nodes' claims on a real ledger that can fall silent or forget, with the clock in the test's hand."""

import uuid
from collections.abc import Callable
from typing import Any

from dialogs.memory import Clock, now

from node.claims import Claims
from node.pools import InlinePool
from store.claim import ClaimRequest, ClaimTable
from store.errors import LedgerUnavailable
from store.keys import Keys, connection_name
from store.ledger import Ledger


class CutTable(ClaimTable):
    """A table whose exchanges can fail before the ledger hears of them, or after."""

    cut: str = ""

    def exchange(self, lease: str, requests: list[ClaimRequest]) -> list[str]:
        if self.cut == "exchange":
            raise LedgerUnavailable("the question was lost")
        return self._through(lambda: ClaimTable.exchange(self, lease, requests))

    def beat(self, *arguments: Any) -> Any:
        return self._through(lambda: ClaimTable.beat(self, *arguments))

    def _through(self, call: Callable[[], Any]) -> Any:
        if self.cut == "before":
            raise LedgerUnavailable("the question was lost")
        answer = call()
        if self.cut == "after":
            raise LedgerUnavailable("the answer was lost")
        return answer


class Cluster:
    """Nodes that share a store's keys on one ledger."""

    def __init__(self, url: str) -> None:
        self.url, self.keys, self.clock = url, Keys(str(uuid.uuid4())), Clock()
        self.ledgers: list[Ledger] = []

    def node(self, name: str = "n1", incarnation: str = "1", pool: Any = None) -> Claims:
        ledger = Ledger(self.url, connection_name(f"{name}~{incarnation}.1"))
        self.ledgers.append(ledger)
        claims = Claims(
            node=name,
            table=CutTable(ledger, self.keys),
            ledger=ledger,
            incarnation=incarnation,
            pool=pool or InlinePool(),
            facts=dict,
            clock=self.clock,
        )
        if pool is None:
            now(claims.join())
            now(claims.beat())
        return claims

    def forget_everything(self) -> None:
        """As a ledger that was restarted without its memory."""
        self.ledgers[0]._redis.delete(*(getattr(self.keys, name) for name in ("epoch", "leases", "nodes", "claims")))

    def held(self, mailbox: str) -> bool:
        return mailbox in self.ledgers[0].hash(self.keys.claims)
