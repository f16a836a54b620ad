"""
Domain registrations: which domains this cluster receives mail for, in the ledger, as an ordered log.

Guarantees  I8: an acknowledged change has a version, and a node that asks for "all after version n" gets it, however
            long it was away. With Sentinel it is acknowledged when a replica has it, so that a fail-over keeps it.
            Adding and deleting are repeatable on any node. Nothing here deletes because a directory is missing: a
            share that is not mounted never costs a registration.
Fails with  LedgerUnavailable.
Knows       the ledger. What the store's directories say is brought by the caller.

The log is compacted: one entry a domain, at the version of its last change (a tombstone for a deletion). So it
can be replayed from any version, 0 too, and grows only with the number of domains there ever were.
"""

import json
from typing import Literal, Self, cast

from attrs import frozen

from store.keys import Keys
from store.ledger import Ledger

Verb = Literal["add", "restore", "delete", "lock", "unlock"]

LOOKS_MAX = 5  # Changes are made by hand; one that comes between two looks is rare, five in a row are a script's.


@frozen(kw_only=True)
class Registration:
    """One domain's last change. ``when_milliseconds`` is on the ledger's clock."""

    domain: str
    who: str
    when_milliseconds: int
    version: int
    deleted: bool
    locked: bool

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what register.lua wrote."""
        record = json.loads(text)
        return cls(
            domain=record["domain"],
            who=record["who"],
            when_milliseconds=int(record["when"]),
            version=int(record["version"]),
            deleted=bool(record["deleted"]),
            locked=bool(record["locked"]),
        )


class Registry:
    """The registrations of one store in the ledger."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys

    def register(self, domain: str, verb: Verb, who: str) -> tuple[bool, Registration | None]:
        """
        Write a change; return whether anything changed, and the registration as it stands.

        ``restore`` is what a node does that finds a directory without a registration (a wiped ledger, an adopted
        tree): it adds, but never over a deletion.
        """
        keys = (self._keys.domains, self._keys.changes, self._keys.version)
        answer = self._ledger.run_script("register", keys, (domain, verb, who), keep=True)
        changed, text = cast("tuple[int, str]", answer)
        return bool(changed), Registration.from_json(text) if text else None

    def changes_after(self, version: int) -> list[Registration]:
        """Return every domain that changed after a version, in the order of the changes."""
        whole: list[Registration] = []
        for _ in range(LOOKS_MAX):
            changed = dict(self._ledger.sorted_since(self._keys.changes, version))
            texts = self._ledger.hash_values(self._keys.domains, list(changed))
            found = [Registration.from_json(text) for text in texts if text]
            # A domain that changed between our two looks has a version beyond the first look. Whoever took it for the
            # last one would never ask for the changes in between (I8): it is left to the next look.
            whole = [registration for registration in found if registration.version == changed[registration.domain]]
            if len(whole) == len(found):
                break
        return sorted(whole, key=lambda registration: registration.version)

    def version(self) -> int:
        """Return the version of the last change."""
        return self._ledger.number(self._keys.version)
