"""
The clients: as many POP3 sessions as are asked for, 32 at a time, each command after the last one's reply.

A process of its own, so that its processor time is nobody else's. Prints the seconds it took.
"""

import selectors
import socket
import sys
import time
from collections.abc import Iterator

CLIENTS = 32
END = b"\r\n.\r\n"


def script(user: str, kind: str) -> Iterator[tuple[bytes, bool]]:
    """Yield each command of a session and whether its reply has several lines (docs: bench/README.md)."""
    yield b"", False
    yield f"USER {user}\r\n".encode(), False
    yield b"PASS pw\r\n", False
    yield b"STAT\r\n", False
    yield b"UIDL\r\n", True
    yield b"LIST\r\n", True
    if kind == "fetch":
        for number in (1, 2, 3):
            yield f"RETR {number}\r\n".encode(), True
    yield b"QUIT\r\n", False


class Client:
    """One session at a time."""

    def __init__(self, port: int, selector: selectors.BaseSelector, users: Iterator[str], kind: str) -> None:
        self._port, self._selector, self._users, self._kind = port, selector, users, kind

    def begin(self) -> bool:
        """Start the next session; False where there is none."""
        user = next(self._users, None)
        if user is None:
            return False
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._steps = script(user, self._kind)
        self._received = b""
        self._command, self._several = next(self._steps)
        self._selector.register(self._socket, selectors.EVENT_READ, self)
        return True

    def readable(self) -> bool:
        """Take what came; send the next command behind a whole reply. False at the session's end."""
        data = self._socket.recv(1 << 17)
        self._received += data
        if not data or self._received.startswith(b"-"):
            sys.exit(f"{self._command!r} was answered with {self._received[:200]!r}")
        if not self._received.endswith(END if self._several else b"\r\n"):
            return True
        step = next(self._steps, None)
        if step is None:
            self._selector.unregister(self._socket)
            self._socket.close()
            return False
        self._received = b""
        self._command, self._several = step
        self._socket.send(self._command)
        return True


def main(port: int, kind: str, sessions: int, mailboxes: int, domain: str) -> float:
    """Run the sessions; return the seconds."""
    users = iter([f"u{number % mailboxes}{domain}" for number in range(sessions)])
    selector = selectors.DefaultSelector()
    began = time.monotonic()
    open_clients = sum(Client(port, selector, users, kind).begin() for _ in range(CLIENTS))
    while open_clients:
        for key, _ in selector.select():
            if not key.data.readable() and not key.data.begin():
                open_clients -= 1
    return time.monotonic() - began


if __name__ == "__main__":
    print(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
