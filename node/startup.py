"""
What is settled before the reactor runs, while a refusal can still be a sentence and an exit status.

Fails with  Misconfigured, whose detail says what to do.
"""

import os
import resource
import secrets
import socket

from node.config import Address, Config
from store import files, identity
from store.errors import Misconfigured, StoreError

BACKLOG = 1024  # Connections the kernel keeps while the reactor is busy.


def check_store(config: Config) -> identity.Identity:
    """Verify the marker and that the store can be written. :raises StoreError: with the fix."""
    found = identity.verify(config.mail_store, config.guid, config.method)
    try:
        probe = files.Draft(config.mail_store, f".tmp-probe-{secrets.token_hex(8)}")
        probe.write(b"probe")
        probe.discard()
    except (StoreError, OSError) as error:
        raise Misconfigured(
            f"{config.mail_store} can't be written by user id {os.getuid()}: {error}. "
            "Give the nodes' account write access to the share, then start again"
        ) from error
    return found


def bind(address: Address, key: str, *, reuse_port: bool) -> socket.socket:
    """Return a listening socket. :raises Misconfigured: the port is taken or forbidden, with the fix."""
    family, kind, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"{key}: can't listen at {address[0]}:{address[1]}: {error.strerror}. "
            "Another program has the port, or ports under 1024 need CAP_NET_BIND_SERVICE"
        ) from error
    return listener


def allow_many_connections() -> None:
    """Ask the kernel for as many descriptors as it lets us have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
