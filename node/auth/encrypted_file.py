"""
The method ``encrypted_file``: the credential lies sealed in the mailbox's own directory.

Guarantees  a refusal takes as long as an acceptance: an unknown mailbox costs one key derivation like a wrong password.
Fails with  Unavailable: could not tell.
Knows       the store. Blocking, thread-safe.

A password that was verified is remembered for a while under a keyed hash, so that a client that polls every minute
does not cost a key derivation each time. What is remembered counts only for the very credential file (a name
that is never used twice) it was verified against, so a changed password is in force at the next login, on every node.
"""

import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock as ThreadLock

from node.auth.outcome import No, Yes
from store.address import Address
from store.credential import NOBODY, PASSWORD_OCTETS_MAX, unseal
from store.domain import MailStore, locked_in
from store.errors import Missing, Refused
from store.mailbox import newest, read_setting

REMEMBERED_MAX = 20_000  # About 4 MB.
REMEMBER_SECONDS = 3600.0  # A polling client comes back within the hour.


class EncryptedFile:
    """Verifies passwords against the credential files of a store."""

    def __init__(self, store: MailStore, key: bytes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._memory_key = os.urandom(32)
        self._memory: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._lock = ThreadLock()

    def verify(self, user: str, password: str) -> Yes | No:
        """Verify a user (a full address) and a password. :raises Unavailable: could not tell."""
        if len(password) > PASSWORD_OCTETS_MAX:
            return No()
        try:
            mailbox = self._store.find(Address.parse(user))
            listing = mailbox.listing()
        except (Missing, Refused):
            NOBODY.admits(password)
            return No()
        setting = newest(listing, "auth")
        if setting is None:
            NOBODY.admits(password)
            return No()
        # The mailbox's path is in the hash: two mailboxes may have a setting of one name after a restore.
        digest = hmac.digest(
            self._memory_key, f"{mailbox.path}\0{password}".encode("utf-8", "surrogateescape"), "sha256"
        )
        if not self._remembers(setting.name, digest):
            found = read_setting(mailbox.path, listing, "auth")
            if found is None:
                NOBODY.admits(password)
                return No()
            setting, content = found
            if not unseal(content, self._key, self._store.store_id).admits(password):
                return No()
            self._remember(setting.name, digest)
        return Yes(mailbox, locked_in(listing))

    def _remembers(self, name: str, digest: bytes) -> bool:
        with self._lock:
            until = self._memory.get((name, digest))
            return until is not None and self._clock() < until

    def _remember(self, name: str, digest: bytes) -> None:
        with self._lock:
            self._memory[name, digest] = self._clock() + REMEMBER_SECONDS
            self._memory.move_to_end((name, digest))
            if len(self._memory) > REMEMBERED_MAX:
                self._memory.popitem(last=False)
