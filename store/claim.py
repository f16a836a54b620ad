"""
The claim: exclusive access to a mailbox across nodes (RFC 1939 section 4), as a lease with a token.

Safety never rests on it. Messages are immutable and have unique names; a holder who has lost his claim without
knowing can at worst remove what his own user asked him to remove. The claim is for exclusiveness, the name is
for safety.

Guarantees  a claim is held by a *lease of the node process*: one renewal keeps all of a node's claims, and they
            are all free at the instant the lease ends. Only the owner of a token can drop it.
            After the ledger lost its memory, or may have lost the end of it (a restart, a fail-over), nothing is
            granted for GRACE_SECONDS, in which the holders assert theirs.
Fails with  LedgerUnavailable: unknown, which is not ours.
Knows       the ledger. Nothing of threads, sessions or time-outs of nodes.

    no claim --take--> held --drop--> no claim
                        | the lease lapses (TTL), is reaped (the node's connection is gone), or
                        | an administrator breaks the claim
                        v
                       lost: the holder's confirm says so, and it removes nothing (I5)
"""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from attrs import frozen

from store.errors import LedgerUnavailable
from store.keys import Keys
from store.ledger import Ledger

LEASE_TTL_SECONDS = 10.0  # A cut-off node's mailboxes reopen within this, plus one second.
BEAT_SECONDS = 0.5  # A lease is renewed with twenty tries to spare, and a death is seen in two beats.
GRACE_SECONDS = 2.0  # Four beats: every node that is up has asserted its claims to a new ledger by then.

MILLISECONDS = 1000

Operation = Literal["take", "confirm", "drop"]


class ClaimRequest(NamedTuple):
    """One step on one claim. The token is the node's own counter: with the lease id it never comes twice."""

    operation: Operation
    mailbox: str
    token: int


@frozen(kw_only=True)
class Beat:
    """What the ledger answers to a renewal."""

    state: Literal["ok", "gone", "taken"]
    epoch: str
    epoch_age_seconds: float
    registrations_version: int
    other_leases: tuple[str, ...]
    broken: tuple[tuple[int, str], ...]


@frozen(kw_only=True)
class HeldClaim:
    """A claim as an administrator sees it."""

    mailbox: str
    node: str
    lease: str
    age_seconds: float


@frozen(kw_only=True)
class NodeFacts:
    """A node as an administrator sees it; ``facts`` is what the node last said of itself."""

    node: str
    alive: bool
    facts: dict[str, str | int | float | bool]


class ClaimTable:
    """The claims and leases of one store in the ledger."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys

    def exchange(self, lease: str, requests: Sequence[ClaimRequest]) -> list[str]:
        """
        Carry out any number of requests of one lease in one step.

        :returns: an answer each: ``ok``, ``held <claim>``, ``lost``, ``lapsed``, ``grace`` (scripts/claims.lua).
        """
        arguments: list[str | int] = [lease, int(GRACE_SECONDS * MILLISECONDS)]
        for request in requests:
            arguments += request
        keys = (self._keys.leases, self._keys.claims, self._keys.epoch, self._keys.broken)
        return cast("list[str]", self._ledger.run_script("claims", keys, arguments))

    def beat(self, lease: str, mode: Literal["join", "renew"], node: str, facts: str, fresh_epoch: str) -> Beat:
        """Begin or renew a lease. ``facts`` is a JSON object with at least ``lease``."""
        of = self._keys
        keys = (of.epoch, of.leases, of.nodes, of.broken, of.version, of.claims)
        ttl = int(LEASE_TTL_SECONDS * MILLISECONDS)
        answer = self._ledger.run_script("beat", keys, (lease, mode, ttl, node, facts, fresh_epoch))
        state, epoch, age, version, others, broken = cast(
            "tuple[Literal['ok', 'gone', 'taken'], str, int, int, list[str], list[str]]", answer
        )
        pairs = (text.split(" ", 1) for text in broken)
        return Beat(
            state=state,
            epoch=epoch,
            epoch_age_seconds=age / MILLISECONDS,
            registrations_version=version,
            other_leases=tuple(others),
            broken=tuple((int(token), mailbox) for token, mailbox in pairs),
        )

    def reassert(self, lease: str, held: Sequence[tuple[str, int]]) -> list[str] | None:
        """
        Put a lease and its claims back into a ledger that began a new epoch.

        :returns: the mailboxes that somebody else has; None where it is too late, and all are lost.
        :raises LedgerUnavailable: it has begun yet another; the next beat tells.
        """
        arguments: list[str | int] = [lease, int(LEASE_TTL_SECONDS * MILLISECONDS), int(GRACE_SECONDS * MILLISECONDS)]
        for mailbox, token in held:
            arguments += (mailbox, token)
        keys = (self._keys.epoch, self._keys.leases, self._keys.claims)
        state, lost = cast("tuple[str, list[str]]", self._ledger.run_script("reassert", keys, arguments))
        if state == "former":
            raise LedgerUnavailable("the ledger was restarted or failed over once more; the next beat tells")
        return lost if state == "ok" else None

    def end_lease(self, lease: str, leaving_node: str = "") -> bool:
        """End a lease and with it all of its claims; tell whether it lived."""
        return bool(self._ledger.run_script("end_lease", (self._keys.leases, self._keys.nodes), (lease, leaving_node)))

    def break_claim(self, mailbox: str) -> HeldClaim | None:
        """Break the claim on a mailbox; the holder's session ends within a beat and removes nothing."""
        value = self._ledger.run_script("break_claim", (self._keys.claims, self._keys.broken), (mailbox,))
        return self._read_claim(mailbox, value, self._ledger.milliseconds()) if isinstance(value, str) else None

    def claims(self) -> list[HeldClaim]:
        """Return every claim that a live lease holds, oldest first."""
        now = self._ledger.milliseconds()
        alive = self._live_leases(now)
        claims = [
            self._read_claim(mailbox, value, now) for mailbox, value in self._ledger.hash(self._keys.claims).items()
        ]
        return sorted((claim for claim in claims if claim.lease in alive), key=lambda claim: -claim.age_seconds)

    def nodes(self) -> list[NodeFacts]:
        """Return every node that joined and has not left, dead ones too, by name."""
        alive = self._live_leases(self._ledger.milliseconds())
        found = []
        for node, text in sorted(self._ledger.hash(self._keys.nodes).items()):
            facts = json.loads(text)
            found.append(NodeFacts(node=node, alive=facts["lease"] in alive, facts=facts))
        return found

    def _live_leases(self, now_milliseconds: int) -> set[str]:
        return {lease for lease, _ in self._ledger.sorted_since(self._keys.leases, now_milliseconds)}

    @staticmethod
    def _read_claim(mailbox: str, value: str, now_milliseconds: int) -> HeldClaim:
        lease, _, since = value.split(" ")
        age = (now_milliseconds - int(since)) / MILLISECONDS
        return HeldClaim(mailbox=mailbox, lease=lease, node=node_of(lease), age_seconds=max(age, 0.0))


def lease_id(node: str, incarnation: str) -> str:
    """Return the id of a node process's lease: no two lives of a node share one."""
    return f"{node}~{incarnation}"


def node_of(lease: str) -> str:
    """Return the node's name from its lease id."""
    return lease.rpartition("~")[0]
