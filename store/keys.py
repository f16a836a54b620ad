"""
Every Redis key of the ledger, and the arguments of every script. Nothing else in the code spells a key.

All keys of a store share one hash tag, so that a ledger can serve several stores and a script's keys are
always on one shard.

    mailroot:{<store id>}:epoch        string  "<random> <master_replid> <born, ms>": which memory this is, in which life
                                               of which primary, and since when
    mailroot:{<store id>}:leases       zset    lease id -> the ms (Redis's clock) at which it lapses
    mailroot:{<store id>}:nodes        hash    node name -> JSON of its facts, with its lease id
    mailroot:{<store id>}:claims       hash    mailbox key -> "<lease id> <token> <since, ms>"
    mailroot:{<store id>}:broken       hash    "<lease id> <token>" -> mailbox key: claims an administrator broke
    mailroot:{<store id>}:domains      hash    domain -> JSON of its registration
    mailroot:{<store id>}:changes      zset    domain -> version of its last change: the log, compacted
    mailroot:{<store id>}:version      counter the version of the last change
"""

from attrs import field, frozen


@frozen
class Keys:
    """The keys of one store."""

    store_id: str
    epoch: str = field(init=False)
    leases: str = field(init=False)
    nodes: str = field(init=False)
    claims: str = field(init=False)
    broken: str = field(init=False)
    domains: str = field(init=False)
    changes: str = field(init=False)
    version: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        for name in ("epoch", "leases", "nodes", "claims", "broken", "domains", "changes", "version"):
            object.__setattr__(self, name, f"mailroot:{{{self.store_id}}}:{name}")


def connection_name(lease_id: str) -> str:
    """
    Return the name under which a node process's connections show in CLIENT LIST.

    A process may have several leases in its life (``node~process.1``, ``….2``), but its connections one name.
    """
    return f"mailroot:{lease_id.rpartition('.')[0]}"
