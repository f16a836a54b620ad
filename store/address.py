"""
Addresses of mailboxes: normal form, prohibited characters, path safety.

Knows       what may become a directory name on every share (NFS and SMB), and the seed's naming table.
Guarantees  an ``Address`` or a normal domain can be joined to the store's path without a further look:
            no separator, no NUL, no leading dot, no name over 255 bytes.
Fails with  Refused, whose detail says what would be right.
"""

import re
import unicodedata
from typing import Self

import idna
from attrs import frozen

from store.errors import Refused

# The seed's table for encrypted password file authentication, and `|`, which SMB cannot store.
PROHIBITED = frozenset('@()/\\[]:;,"<>*=?|')
LOCAL_CHARACTERS_MAX = 64  # Windows help cc772824: mailbox names have 1-64 characters. Also RFC 5321 4.5.3.1.1.
DOMAIN_OCTETS_MAX = 253  # RFC 1035 2.3.4: 255 octets on the wire are 253 in text.
NAME_OCTETS_MAX = 255  # What ext4, NTFS and most shares allow for one name.

MAILBOX_PREFIX = "P3_"  # The layout of the Windows POP3 service (docs/STORAGE.md).
MAILBOX_SUFFIX = ".mbx"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 2.1


def normal_domain(text: str) -> str:
    """
    Return the domain in its one form: lower case, A-labels (RFC 5890), no final dot.

    :raises Refused: not a fully qualified domain name.
    """
    domain = text.strip().removesuffix(".").lower()
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            message = f"{text!r} is not a domain name: {error}"
            raise Refused(message) from error
    labels = domain.split(".")
    if len(domain) > DOMAIN_OCTETS_MAX or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004 (a fully qualified name has two labels)
        message = f"{text!r} is not a fully qualified domain name; write it like example.com"
        raise Refused(message)
    return domain


def normal_local(text: str) -> str:
    """
    Return the mailbox name in its one form: NFC, lower case.

    Lower case because Windows matched names so, and because SMB takes ``Bob`` and ``bob`` for one directory.

    :raises Refused: empty, too long, or with a character that the seed's table prohibits.
    """
    # Composed again after the lower case: J with a caron has no composed form, j with a caron has.
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    bad = sorted(PROHIBITED.intersection(local))
    if bad:
        message = f"the mailbox name {text!r} has the prohibited characters {' '.join(bad)}; leave them out"
    elif not local or len(local) > LOCAL_CHARACTERS_MAX:
        message = f"the mailbox name {text!r} has {len(local)} characters; 1 to {LOCAL_CHARACTERS_MAX} are allowed"
    elif not local.isprintable() or " " in local:
        message = f"the mailbox name {text!r} has blanks or control characters; leave them out"
    elif local.startswith(MAILBOX_PREFIX.lower()):
        message = f"the mailbox name {text!r} begins like a directory of the store; write it without {MAILBOX_PREFIX}"
    elif local.startswith(".") or local.endswith(".") or ".." in local:
        message = f"the mailbox name {text!r} has a dot at its begin or end, or two in a row; RFC 5321 allows neither"
    elif len(directory_name(local).encode()) > NAME_OCTETS_MAX:
        message = f"the mailbox name {text!r} is longer than a directory name may be ({NAME_OCTETS_MAX} bytes)"
    else:
        return local
    raise Refused(message)


def directory_name(local: str) -> str:
    """Return the directory of the mailbox ``local`` inside its domain's directory."""
    return f"{MAILBOX_PREFIX}{local}{MAILBOX_SUFFIX}"


def local_of_directory(name: str) -> str | None:
    """Return the mailbox name of a directory in any case (adopted trees), or None where it is no mailbox."""
    folded = unicodedata.normalize("NFC", name.lower())  # A tree that was copied from a Mac is in NFD.
    if folded.startswith(MAILBOX_PREFIX.lower()) and folded.endswith(MAILBOX_SUFFIX):
        return folded[len(MAILBOX_PREFIX) : -len(MAILBOX_SUFFIX)]
    return None


@frozen
class Address:
    """A mailbox's address in normal form; ``str()`` gives ``local@domain``."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``local@domain`` as a person or an SMTP client writes it. :raises Refused: with the reason."""
        local, at, domain = text.rpartition("@")
        if not at:
            message = f"{text!r} is not an address; write it like someone@example.com"
            raise Refused(message)
        return cls(normal_local(local), normal_domain(domain))

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"
