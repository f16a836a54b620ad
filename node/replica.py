"""
This node's copy of the domain registrations: its local SMTP domain table.

Guarantees  I8: a change is here one beat after the ledger acknowledged it, or the version tells that we are behind.
            An unmounted store changes nothing; a wiped ledger is written again from the store's directories.
            A node that starts without a ledger serves the domains of the store's directories, and says so.
Fails with  nothing: trouble is kept in ``trouble`` and the old copy stays in force.
Knows       Registry through the ledger pool, the store's domains through the disk pool.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from node import journal
from node.pools import Pool
from store.claim import Beat
from store.domain import MailStore
from store.errors import Missing, StoreError
from store.registry import Registration, Registry

RECONCILE_SECONDS = 60.0  # How soon a directory that somebody made by hand is registered.
MISSING_TOLD_MAX = 5  # Registered domains without a directory that are named: they go with every beat.


class Replica:
    """The registrations as this node knows them. Used on the reactor."""

    def __init__(
        self,
        *,
        node: str,
        registry: Registry,
        store: MailStore,
        ledger_pool: Pool,
        disk: Pool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._registry = registry
        self._store = store
        self._ledger_pool = ledger_pool
        self._disk = disk
        self._clock = clock
        self._registrations: dict[str, Registration] = {}
        self._from_store: dict[str, bool] = {}
        self._epoch = ""
        self._reconciled_at = float("-inf")
        self._announced = 0
        self._store_was_read = False
        self.version = 0
        self.trouble: str | None = "the registrations have not been read yet"
        self.missing_directories: tuple[str, ...] = ()

    def accepts(self, domain: str) -> bool:
        """Tell whether this cluster receives mail for a domain."""
        known = self._registrations.get(domain)
        return not known.deleted if known is not None else domain in self._from_store

    def is_locked(self, domain: str) -> bool:
        """Tell whether the administrator locked a domain."""
        known = self._registrations.get(domain)
        return known.locked if known is not None else self._from_store.get(domain, False)

    @property
    def domains(self) -> list[str]:
        """Return the domains that are accepted, sorted."""
        return sorted(domain for domain in {*self._registrations, *self._from_store} if self.accepts(domain))

    @property
    def knows_domains(self) -> bool:
        """Tell whether domains are accepted: from the ledger, or from the store while there is no ledger."""
        return self._store_was_read or bool(self._registrations)

    @property
    def behind(self) -> int:
        """Return how many versions the ledger had at the last beat that are not here yet; 0 is as it should be."""
        return max(self._announced - self.version, 0)

    async def read_store(self) -> None:
        """Learn the domains of the store's directories: all there is while the ledger is out of reach."""
        try:
            self._from_store = await self._disk.run(self._directories)
            self._store_was_read = True
        except StoreError as error:
            self.trouble = error.detail

    async def follow(self, beat: Beat | None) -> None:
        """Catch up with what a beat of the ledger says. Called after every beat."""
        if beat is None:
            self.trouble = "the ledger does not answer; changes of domains are not seen"
            return
        self._announced = beat.registrations_version
        try:
            if beat.epoch != self._epoch or beat.registrations_version < self.version:
                # Another memory, or an older one: its versions do not continue ours. What we know stays in force
                # until the new log, with the store's directories written into it, has been read.
                await self._reconcile()
                await self._replay(0)
                self._epoch = beat.epoch
            elif beat.registrations_version > self.version:
                await self._replay(self.version)
            if self._clock() - self._reconciled_at > RECONCILE_SECONDS:
                await self._reconcile()
        except StoreError as error:
            if self.trouble is None:
                journal.warning("replica_behind", version=self.version, detail=error.detail)
            self.trouble = error.detail
        else:
            self.trouble = None

    async def _replay(self, after: int) -> None:
        changes = await self._ledger_pool.run(self._registry.changes_after, after)
        if after == 0:
            self._registrations = {}
            self.version = 0
        for change in changes:
            self._registrations[change.domain] = change
            self.version = max(self.version, change.version)
        if changes:
            journal.event("registrations", version=self.version, changes=len(changes))

    async def _reconcile(self) -> None:
        """Register every directory that the ledger has never heard of. Never the other way round."""
        directories = await self._disk.run(self._directories)
        self._from_store = directories
        self._store_was_read = True
        for domain, locked in directories.items():
            known = self._registrations.get(domain)
            changed, _ = await self._ledger_pool.run(self._registry.register, domain, "restore", self._node)
            if changed and locked:
                await self._ledger_pool.run(self._registry.register, domain, "lock", self._node)
            if changed:
                journal.event("domain_restored", domain=domain, known=known is not None)
        self._reconciled_at = self._clock()
        missing = [domain for domain in self.domains if domain not in directories]
        self.missing_directories = tuple(missing[:MISSING_TOLD_MAX])

    def _directories(self) -> dict[str, bool]:
        found = {}
        for domain, path in self._store.domains().items():
            with suppress(Missing):  # It was deleted between the two looks.
                found[domain] = self._store.is_locked(path)
        return found
