"""
Which nodes have died: those whose connection to the ledger was there and is gone.

Guarantees  a node whose connection was never seen on this ledger is never thought dead.
Knows       lease ids, and the names of connections that CLIENT LIST tells. Nothing of the ledger itself.
"""

from attrs import define, field

from store.keys import connection_name

ABSENT_LOOKS = 2  # One look may fall between a node's lost connection and its next.


@define
class DeathWatch:
    """
    Tells which leases have no process any more: their connection was seen on this ledger and is gone for two looks.

    "Was seen" matters: after a fail-over of the ledger every node is absent until it has found the new one.
    """

    _seen: set[str] = field(factory=set)
    _absent: dict[str, int] = field(factory=dict)

    def look(self, leases: tuple[str, ...], connections: set[str]) -> list[str]:
        """Take one look; return the leases to end."""
        dead = []
        for lease in leases:
            if connection_name(lease) in connections:
                self._seen.add(lease)
                self._absent.pop(lease, None)
            elif lease in self._seen:
                self._absent[lease] = self._absent.get(lease, 0) + 1
                if self._absent[lease] >= ABSENT_LOOKS:
                    dead.append(lease)
        self._seen.intersection_update(leases)
        self._absent = {lease: looks for lease, looks in self._absent.items() if lease in self._seen}
        return dead

    def forget(self) -> None:
        """Start anew: our own connection broke, so what we saw belongs to another ledger."""
        self._seen.clear()
        self._absent.clear()
