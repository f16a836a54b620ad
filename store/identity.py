"""
The store's marker: which store this is, which GUID it belongs to, which authentication method, which layout.

Guarantees  I9: a directory without the marker (an unmounted share, most of all) is never taken for the store.
Fails with  Misconfigured, whose detail is the fix; Unavailable where the share does not answer.

The seed had every server use one GUID, because the encrypted passwords depend on it. The marker holds a proof
of the GUID, never the GUID: a value that only its owner can compute, so that a node with another GUID is told
at start and not by users whose passwords fail.
"""

import hmac
import json
import uuid

from attrs import frozen
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store import files
from store.errors import Exists, Misconfigured, Missing, Unavailable

MARKER = ".mailroot"
LAYOUT = 1
METHODS = ("encrypted_file",)  # The other two methods of the seed are not built yet.
KEY_OCTETS = 32
EXAMPLE_GUID = uuid.UUID("00000000-0000-4000-8000-000000000000")  # deploy/node.yaml's: known to everybody.


def derived_key(guid: uuid.UUID, store_id: str, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose (HKDF-SHA256, RFC 5869), bound to the GUID and to the store."""
    return HKDF(SHA256(), KEY_OCTETS, salt=store_id.encode(), info=f"mailroot {purpose}".encode()).derive(guid.bytes)


@frozen(kw_only=True)
class Identity:
    """What the marker says."""

    layout: int
    store_id: str
    guid_proof: str
    method: str


def found(root: str, guid: uuid.UUID, method: str) -> Identity:
    """
    Write the marker of a new store: an empty directory, or a mail store of the Windows service.

    :raises Exists: the directory has a marker. Misconfigured: it holds something that is no mail store.
    """
    if method not in METHODS:
        message = f"the method {method!r} is not one of {', '.join(METHODS)}"
        raise Misconfigured(message)
    if guid == EXAMPLE_GUID:
        message = (
            "the GUID is the example's, which everybody knows, and it is the key to the passwords: uuidgen makes one"
        )
        raise Misconfigured(message)
    try:
        listing = files.list_names(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{root} is no directory; make it, or mount the share there, then run this again"
        raise Missing(message) from error
    if MARKER in listing:
        message = f"{root} has a marker already ({MARKER}); nothing was changed"
        raise Exists(message)
    # Hidden names are the file server's own, such as .snapshot.
    strangers = [name for name in listing if "." not in name and name != "lost+found"]
    if strangers:
        message = f"{root} holds {strangers[0]!r}, which is no domain directory; use an empty directory"
        raise Misconfigured(message)
    store_id = str(uuid.uuid4())
    proof = derived_key(guid, store_id, "guid proof").hex()
    identity = Identity(layout=LAYOUT, store_id=store_id, guid_proof=proof, method=method)
    content = json.dumps(
        {"layout": LAYOUT, "store_id": store_id, "guid_proof": proof, "method": method, "made_by": "mailroot"}, indent=2
    )
    files.write_new(root, f"{MARKER}.tmp-{store_id}", MARKER, content.encode() + b"\n")
    # Two administrators at one instant: the later rename wins, so believe what is there.
    there = load(root)
    return there if there.store_id != store_id else identity


def load(root: str) -> Identity:
    """Read the marker. :raises Misconfigured: there is none (I9), or none that this release understands."""
    try:
        content = files.read_whole(f"{root}/{MARKER}")
    except (FileNotFoundError, NotADirectoryError) as error:
        message = (
            f"{root} has no marker ({MARKER}): the share is not mounted there, or the store is new. "
            f"Mount it, or write the marker of a new store with: mailroot store init"
        )
        raise Misconfigured(message) from error
    try:
        marker = json.loads(content)
        layout = int(marker["layout"])
        if layout != LAYOUT:
            message = f"{root} has layout {layout}; this release knows layout {LAYOUT}. Use the release that made it"
            raise Misconfigured(message)
        return Identity(
            layout=layout,
            store_id=str(uuid.UUID(marker["store_id"])),
            guid_proof=str(marker["guid_proof"]),
            method=str(marker["method"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        message = (
            f"the marker {root}/{MARKER} is damaged ({type(error).__name__}: {error}). Restore it from a backup; "
            "a new one would make every password of the store unreadable"
        )
        raise Misconfigured(message) from error


def verify(root: str, guid: uuid.UUID, method: str) -> Identity:
    """Read the marker and hold it against this node's settings. :raises Misconfigured: with the fix."""
    identity = load(root)
    proof = derived_key(guid, identity.store_id, "guid proof").hex()
    if not hmac.compare_digest(proof, identity.guid_proof):
        message = (
            f"the GUID of this node is not the one of the mail store {root}. All nodes of a store share one GUID: "
            "copy guid (or the file guid_file) from a node that serves it"
        )
        raise Misconfigured(message)
    if identity.method != method:
        message = (
            f"auth.method is {method}, but the mail store {root} was made for {identity.method}. Set auth.method: "
            f"{identity.method}; the method of a store can change only while it has no domain"
        )
        raise Misconfigured(message)
    return identity


def believe_missing(root: str, store_id: str, what: str) -> Missing | Unavailable:
    """
    Return the error for something that is not there: Missing only with the store's marker in sight (I9).

    A node whose mount went away sees an empty directory. Without this look it would bounce mail for ever that
    a mounted share would have taken.
    """
    try:
        seen = load(root)
    except Misconfigured as error:
        return Unavailable(error.detail)
    except Unavailable as error:
        return error
    if seen.store_id != store_id:
        return Unavailable(f"{root} is another store now ({seen.store_id}); this node serves {store_id}")
    return Missing(what)
