"""The outcomes of a verification: Yes, No, or a StoreError for "could not tell"."""

from typing import NamedTuple, Protocol

from store.mailbox import Mailbox


class Yes(NamedTuple):
    """The password is right; this is the mailbox, and whether its administrator locked it."""

    mailbox: Mailbox
    locked: bool


class No(NamedTuple):
    """Wrong password or no such mailbox: nobody is told which."""


class Authenticator(Protocol):
    """An authentication method. Blocking: called in the disk pool."""

    def verify(self, user: str, password: str) -> Yes | No:
        """Verify a user. :raises Unavailable: could not tell."""
        ...
