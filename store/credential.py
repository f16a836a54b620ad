"""
The credential of a mailbox: a sealed file in its directory, so that an alias logs in with the target's password.

Guarantees  the file is unreadable and unforgeable without the GUID, and worthless in another store.
Fails with  Unavailable (could not tell) for a file that does not open; never "wrong password".
Knows       SCRAM-SHA-256 keys (RFC 5802, RFC 7677) and the AEAD around them. The password itself is not kept.
"""

import hmac
import json
import os
from hashlib import pbkdf2_hmac, sha256
from typing import Self

from attrs import frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from store.errors import Unavailable

ITERATIONS = 15_000  # RFC 7677 section 4: "at least 15000 or so" for SCRAM-SHA-256's hash iterations.
SALT_OCTETS = 16
NONCE_OCTETS = 12  # NIST SP 800-38D: 96 bits, random.
PASSWORD_OCTETS_MAX = 1024  # A bound on what a stranger can make us hash; a POP3 line is shorter anyway.


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    return pbkdf2_hmac("sha256", password.encode("utf-8", "surrogateescape"), salt, iterations)


@frozen(kw_only=True)
class Credential:
    """What SCRAM-SHA-256 keeps of a password (RFC 5802 section 3). Never printed: repr shows nothing."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "Credential(<sealed>)"

    @classmethod
    def of(cls, password: str) -> Self:
        """Derive the credential of a new password."""
        salt = os.urandom(SALT_OCTETS)
        salted = _salted(password, salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        return cls(
            salt=salt,
            iterations=ITERATIONS,
            stored_key=sha256(client_key).digest(),
            server_key=hmac.digest(salted, b"Server Key", "sha256"),
        )

    def admits(self, password: str) -> bool:
        """Tell whether this is the password. Takes the same time for yes and no."""
        client_key = hmac.digest(_salted(password, self.salt, self.iterations), b"Client Key", "sha256")
        return hmac.compare_digest(sha256(client_key).digest(), self.stored_key)


# Stands in for the credential of a mailbox that does not exist, so that a refusal takes as long as an acceptance.
NOBODY = Credential.of(os.urandom(SALT_OCTETS).hex())


def seal(credential: Credential, key: bytes, store_id: str) -> bytes:
    """Return the content of a credential file. ``key`` is identity.derived_key(…, "credentials")."""
    plain = json.dumps(
        {
            "salt": credential.salt.hex(),
            "iterations": credential.iterations,
            "stored_key": credential.stored_key.hex(),
            "server_key": credential.server_key.hex(),
        }
    )
    nonce = os.urandom(NONCE_OCTETS)
    return nonce + AESGCM(key).encrypt(nonce, plain.encode(), store_id.encode())


def unseal(content: bytes, key: bytes, store_id: str) -> Credential:
    """Read a credential file. :raises Unavailable: it is damaged or from another store, so nobody can tell."""
    try:
        plain = json.loads(AESGCM(key).decrypt(content[:NONCE_OCTETS], content[NONCE_OCTETS:], store_id.encode()))
        return Credential(
            salt=bytes.fromhex(plain["salt"]),
            iterations=int(plain["iterations"]),
            stored_key=bytes.fromhex(plain["stored_key"]),
            server_key=bytes.fromhex(plain["server_key"]),
        )
    except (InvalidTag, ValueError, KeyError, TypeError) as error:
        message = (
            f"a credential file does not open ({type(error).__name__}): it is damaged or was copied from another "
            "store. Give the mailbox a new password: winpop changepwd"
        )
        raise Unavailable(message) from error
