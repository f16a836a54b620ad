"""
The claims that this node holds: batched take, confirm and drop; one renewal for all.

Guarantees  I5: still_ours() is true only while this node *knows* that its lease lives: by its own clock, counted from
            before the last successful renewal was sent, less a margin. Unknown is not ours.
            A claim that is dropped is dropped: where the ledger did not answer, the drop is owed and sent again.
            A lease that was lost is never picked up again: its sessions may read on and remove nothing.
Fails with  InUse, LedgerUnavailable, LeaseLapsed.
Knows       ClaimTable through the ledger pool, and a clock. Nothing of POP3.

At most one exchange is in flight; whatever comes in meanwhile goes with the next, in one script call. Rejected:
one call for each claim (three times the processor time of a whole session's commands).
"""

import itertools
import json
import secrets
import time
from collections.abc import Callable
from typing import Literal, Protocol

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from node import journal
from node.deathwatch import DeathWatch
from node.pools import Pool
from store.claim import GRACE_SECONDS, LEASE_TTL_SECONDS, Beat, ClaimRequest, ClaimTable, lease_id
from store.errors import InUse, LeaseLapsed, LedgerUnavailable, Misconfigured, StoreError
from store.ledger import Ledger

MARGIN_SECONDS = 1.0  # Between our giving up and the ledger's: more than two clocks drift in ten seconds.
BATCH_MAX = 512  # Claims in one script call: Redis serves nobody else meanwhile (about a millisecond).
BEATS_AWAITED = 2  # The one under way may have been answered before the epoch ended.


def boot_clock() -> float:
    """Return seconds that also pass while the machine sleeps, unlike time.monotonic()."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@define(eq=False)
class Claim:
    """A claim that this node took. Its session may read on when it is ``lost``, and removes nothing."""

    mailbox: str
    token: int
    lease: str
    lost: bool = False


class Claiming(Protocol):
    """What a session needs of the claims."""

    async def take(self, mailbox: str) -> Claim:
        """Take the claim on a mailbox. :raises InUse, LedgerUnavailable, LeaseLapsed: it was not granted."""
        ...

    async def confirm(self, claim: Claim) -> bool:
        """Take the last look before a removal."""
        ...

    def still_ours(self, claim: Claim) -> bool:
        """Tell whether the claim is known to be ours, without asking. Any thread may call this."""
        ...

    async def drop(self, claim: Claim) -> None:
        """Give a claim back. Never fails."""
        ...


class Claims:
    """All claims of this node process. Used on the reactor only, but for still_ours()."""

    def __init__(
        self,
        *,
        node: str,
        table: ClaimTable,
        ledger: Ledger,
        incarnation: str,
        pool: Pool,
        facts: Callable[[], dict[str, object]],
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._node = node
        self._table = table
        self._ledger = ledger
        self._pool = pool
        self._facts = facts
        self._clock = clock
        self._incarnation = incarnation
        self._lives = itertools.count(1)
        self._tokens = itertools.count(1)
        self._watch = DeathWatch()
        self._held: dict[tuple[str, int], Claim] = {}
        self._owed: list[ClaimRequest] = []
        self._waiting: list[tuple[str, ClaimRequest, Deferred[str]]] = []
        self._in_flight = False
        self._valid_until = float("-inf")
        self._lease = ""
        self._epoch = ""
        self._assertions = 0
        self._last: Beat | None = None
        self._beaten: list[Deferred[None]] = []  # Those who wait for the end of a beat.
        self.trouble: str | None = "the first beat has not been answered yet"
        self.epoch_age_seconds = 0.0

    # Claims

    @property
    def held(self) -> int:
        """Return how many claims this node holds."""
        return len(self._held)

    @property
    def lease_seconds_left(self) -> float:
        """Return the seconds until we give our lease up by our own clock, 0 where we have none."""
        return max(self._valid_until - self._clock(), 0.0)

    @property
    def ready(self) -> bool:
        """Tell whether claims are being granted."""
        return self.trouble is None and self._lease_lives() and self.epoch_age_seconds >= GRACE_SECONDS

    async def take(self, mailbox: str) -> Claim:
        """
        Take the claim on a mailbox.

        :raises InUse: somebody has it. LedgerUnavailable, LeaseLapsed: nobody can tell, so nobody gets it.
        """
        if not self._lease_lives():
            raise LeaseLapsed(f"no lease: {self.trouble}")
        claim = Claim(mailbox, next(self._tokens), self._lease)
        assertions = self._assertions
        try:
            answer = await self._ask("take", claim)
        except BaseException:
            # The ledger may have granted it and the network swallowed the answer.
            self._owe(claim)
            raise
        if answer == "ok":
            if claim.lease != self._lease:
                raise LeaseLapsed("the lease ended while the claim was taken")
            if assertions != self._assertions:
                # A ledger that has lost its memory since may have granted it, and it was not among what we asserted.
                self._owe(claim)
                raise LedgerUnavailable("the ledger began a new epoch while the claim was taken")
            self._held[mailbox, claim.token] = claim
            return claim
        if answer.startswith("held "):
            raise InUse(f"{mailbox} is claimed by {answer.removeprefix('held ')}")
        if answer == "grace":
            raise LedgerUnavailable("the ledger is new; the other nodes' claims may not have been asserted yet")
        raise LeaseLapsed(f"the ledger says of our lease: {answer}")

    async def confirm(self, claim: Claim) -> bool:
        """
        Take the last look before a removal: ask the ledger whether the claim is still ours.

        "lapsed" from a lease that lives by our own clock: the ledger began a new epoch, and our claims are asserted by
        the next beat. The user's QUIT is worth waiting for it; half a second later there is no doubt.
        """
        if not self.still_ours(claim):
            return False
        answer = await self._ask("confirm", claim)
        for _ in range(BEATS_AWAITED):
            if answer != "lapsed" or not self.still_ours(claim):
                break
            beaten: Deferred[None] = Deferred()
            self._beaten.append(beaten)
            await beaten
            answer = await self._ask("confirm", claim) if self.still_ours(claim) else "lost"
        return answer == "ok" and self.still_ours(claim)

    def still_ours(self, claim: Claim) -> bool:
        """Tell whether the claim is known to be ours, without asking. Any thread may call this."""
        return not claim.lost and claim.lease == self._lease and self._lease_lives()

    async def drop(self, claim: Claim) -> None:
        """Give a claim back. Never fails: what the ledger did not hear now it hears later."""
        self._held.pop((claim.mailbox, claim.token), None)
        if claim.lost:
            return
        try:
            await self._ask("drop", claim)
        except StoreError:
            self._owe(claim)

    def _lease_lives(self) -> bool:
        return self._clock() < self._valid_until

    def _owe(self, claim: Claim) -> None:
        # The claims of a lease that has ended ended with it.
        if claim.lease == self._lease:
            self._owed.append(ClaimRequest("drop", claim.mailbox, claim.token))

    # One exchange in flight

    def _ask(self, operation: Literal["take", "confirm", "drop"], claim: Claim) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        self._waiting.append((claim.lease, ClaimRequest(operation, claim.mailbox, claim.token), answer))
        if not self._in_flight:
            self._send()
        return answer

    def _send(self) -> None:
        self._in_flight = True
        while self._waiting:
            taken, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            # What waited while its lease ended must not be carried out in the name of the next one.
            for lease, _, waiter in taken:
                if lease != self._lease:
                    waiter.callback("lapsed")
            batch = [(request, waiter) for lease, request, waiter in taken if lease == self._lease]
            if batch:
                requests = [request for request, _ in batch]
                self._pool.run(self._table.exchange, self._lease, requests).addBoth(self._sent, [w for _, w in batch])
                return
        self._in_flight = False

    def _sent(self, answers: list[str] | Failure, waiters: list[Deferred[str]]) -> None:
        self._in_flight = False
        if isinstance(answers, Failure):
            for waiter in waiters:
                waiter.errback(answers)
        else:
            for waiter, answer in zip(waiters, answers, strict=True):
                waiter.callback(answer)
        if self._waiting and not self._in_flight:
            self._send()

    # The lease

    async def join(self) -> None:
        """Begin a lease. :raises Misconfigured: another live node has this name. LedgerUnavailable: try again."""
        if self._lease:
            await self._pool.run(self._table.end_lease, self._lease)
        self._lease = lease_id(self._node, f"{self._incarnation}.{next(self._lives)}")
        self._owed.clear()
        if await self._beat("join") == "taken":
            message = (
                f"a live node is named {self._node} already; give each node of the store its own name (node:). "
                f"If that node was killed just now, its name is free in {LEASE_TTL_SECONDS:.0f} s"
            )
            raise Misconfigured(message)

    async def beat(self) -> Beat | None:
        """Renew the lease and do what the answer says. Called every BEAT_SECONDS; returns None where it failed."""
        try:
            return await self._renew()
        finally:
            self._let_go_on()

    def _let_go_on(self) -> None:
        beaten, self._beaten = self._beaten, []
        for waiter in beaten:
            waiter.callback(None)

    async def _renew(self) -> Beat | None:
        try:
            if self.trouble is not None and not self._lease_lives():
                self._lose_all("the lease lapsed while the ledger did not answer")
                await self.join()
            elif await self._beat("renew") == "gone":
                await self._lease_is_gone()
            if self._owed:
                owed, self._owed = self._owed, []
                try:
                    await self._pool.run(self._table.exchange, self._lease, owed)
                except BaseException:
                    self._owed = owed + self._owed
                    raise
        except StoreError as error:
            if self.trouble is None:
                journal.warning("ledger_lost", detail=error.detail)
            self.trouble = error.detail
            self._watch.forget()
            if not self._lease_lives():
                self._lose_all("the lease lapsed: the ledger does not answer")
            return None
        if self.trouble is not None:
            journal.event("ledger_found", lease=self._lease, epoch=self._epoch)
        self.trouble = None
        return self._last

    async def _beat(self, mode: Literal["join", "renew"]) -> str:
        sent = self._clock()
        facts = json.dumps({"lease": self._lease, **self._facts()})
        lease = self._lease
        beat, connections = await self._pool.run(self._look, lease, mode, facts)
        self._last = beat
        self.epoch_age_seconds = beat.epoch_age_seconds
        if beat.state == "ok":
            self._epoch = beat.epoch
            self._valid_until = sent + LEASE_TTL_SECONDS - MARGIN_SECONDS
        for token, mailbox in beat.broken:
            claim = self._held.get((mailbox, token))
            if claim is not None:
                self._lose(claim, "an administrator broke it")
        if connections is not None:
            for dead in self._watch.look(beat.other_leases, connections):
                journal.warning("lease_ended", lease=dead, reason="its node's connection is gone")
                await self._pool.run(self._table.end_lease, dead)
        return beat.state

    def _look(self, lease: str, mode: Literal["join", "renew"], facts: str) -> tuple[Beat, set[str] | None]:
        """Beat and look around, in the pool's thread."""
        beat = self._table.beat(lease, mode, self._node, facts, secrets.token_hex(8))
        return beat, self._ledger.connection_names() if beat.other_leases else None

    async def _lease_is_gone(self) -> None:
        """
        Find out why our lease is gone.

        A new epoch: the ledger lost its memory or the end of it (it was restarted, or a replica was promoted), and
        grants nothing until the grace is over: put ours back.
        The same epoch: we were thought dead, and others may have held our mailboxes since: all are lost.
        """
        beat = self._last
        if beat is None:
            return
        held = [(claim.mailbox, claim.token) for claim in self._held.values()]
        if beat.epoch != self._epoch and self._lease_lives():
            self._watch.forget()
            self._assertions += 1
            sent = self._clock()
            lost = await self._pool.run(self._table.reassert, self._lease, held)
            if lost is not None:
                journal.warning("claims_asserted", claims=len(held), epoch=beat.epoch)
                self._epoch = beat.epoch
                self._valid_until = sent + LEASE_TTL_SECONDS - MARGIN_SECONDS
                for claim in [claim for claim in self._held.values() if claim.mailbox in lost]:
                    self._lose(claim, "somebody else has it after the ledger lost its memory")
                return
        self._valid_until = float("-inf")
        self._lose_all("the ledger ended our lease")
        await self.join()

    def _lose(self, claim: Claim, reason: str) -> None:
        self._held.pop((claim.mailbox, claim.token), None)
        claim.lost = True
        journal.warning("claim_lost", mailbox=claim.mailbox, reason=reason)

    def _lose_all(self, reason: str) -> None:
        for claim in list(self._held.values()):
            self._lose(claim, reason)

    async def leave(self) -> None:
        """End the lease, so that whatever is still claimed is free at once."""
        self._valid_until = float("-inf")
        self._let_go_on()
        try:
            await self._pool.run(self._table.end_lease, self._lease, self._node)
        except StoreError as error:
            journal.warning("lease_left_to_lapse", detail=error.detail)
