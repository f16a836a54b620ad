"""
The method ``encrypted_file``: the credential lies sealed in the mailbox's own directory.

Guarantees  a refusal takes as long as an acceptance: an unknown mailbox costs one key derivation like a wrong password.
Fails with  Unavailable: could not tell.
Knows       the store. Blocking, thread-safe.

A password that was verified is remembered for a while under a keyed hash, so that a client that polls every minute
does not cost a key derivation each time. What is remembered counts only for the very credential file (a name
that is never used twice) it was verified against, so a changed password is in force at the next login, on every node.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock as ThreadLock
from typing import NamedTuple

from node.auth.outcome import No, Yes
from store.address import Address
from store.credential import NOBODY, PASSWORD_OCTETS_MAX, unseal
from store.domain import MailStore
from store.errors import Missing, Refused
from store.mailbox import Mailbox, newest, read_setting

REMEMBERED_MAX = 20_000  # About 4 MB.
REMEMBER_SECONDS = 3600.0  # A polling client comes back within the hour.


class _Verified(NamedTuple):
    """What a password opened: the mailbox, by which credential file, and until when that is remembered."""

    mailbox: Mailbox
    setting: str
    until: float


class EncryptedFile:
    """Verifies passwords against the credential files of a store."""

    def __init__(self, store: MailStore, key: bytes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._memory_key = os.urandom(32)
        self._memory: OrderedDict[bytes, _Verified] = OrderedDict()
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
        digest = self._digest(user, password)
        setting = newest(listing, "auth")
        known = self._known(digest)
        if known is not None and setting is not None and (known.mailbox, known.setting) == (mailbox, setting.name):
            return Yes(mailbox, listing)
        found = read_setting(mailbox.path, listing, "auth")
        if found is None:
            NOBODY.admits(password)
            return No()
        setting, content = found
        if not unseal(content, self._key, self._store.store_id).admits(password):
            return No()
        with self._lock:
            self._memory[digest] = _Verified(mailbox, setting.name, self._clock() + REMEMBER_SECONDS)
            self._memory.move_to_end(digest)
            if len(self._memory) > REMEMBERED_MAX:
                self._memory.popitem(last=False)
        return Yes(mailbox, listing)

    def recall(self, user: str, password: str) -> Mailbox | None:
        """Return the mailbox that this password opened lately, if any. Does not block; no substitute for verify()."""
        known = self._known(self._digest(user, password))
        return known.mailbox if known is not None else None

    def _known(self, digest: bytes) -> "_Verified | None":
        with self._lock:
            known = self._memory.get(digest)
        return known if known is not None and self._clock() < known.until else None

    def _digest(self, user: str, password: str) -> bytes:
        text = f"{user}\0{password}".encode("utf-8", "surrogateescape")
        return blake2b(text, key=self._memory_key, digest_size=32).digest()
