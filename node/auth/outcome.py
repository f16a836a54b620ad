"""The outcomes of a verification: Yes, No, or a StoreError for "could not tell"."""

from typing import NamedTuple, Protocol

from store.mailbox import Mailbox


class Yes(NamedTuple):
    """The password is right; this is the mailbox, and the listing that showed its credential."""

    mailbox: Mailbox
    listing: list[str]


class No(NamedTuple):
    """Wrong password or no such mailbox: nobody is told which."""


class Authenticator(Protocol):
    """An authentication method."""

    def recall(self, user: str, password: str) -> Mailbox | None:
        """Return the mailbox that this password opened lately, if any. Does not block; no substitute for verify()."""
        ...

    def verify(self, user: str, password: str) -> Yes | No:
        """Verify a user. Blocking: called in the disk pool. :raises Unavailable: could not tell."""
        ...
