"""
A tiny TCP proxy between one node and the ledger: what a bad network does, on demand.

    heal()    everything passes; what was held is delivered late, as TCP does
    hole()    nothing passes and nobody is told: a partition
    cut()     connections break, new ones are refused: a firewall that says so
"""

import contextlib
import socket
import threading
from typing import Literal


class Proxy:
    """Listens on a loopback port of its own."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._mode: Literal["healed", "hole", "cut"] = "healed"
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._ended = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Return the ledger's URL by way of the proxy."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def heal(self) -> None:
        """Let everything pass."""
        self._change("healed")

    def hole(self) -> None:
        """Let nothing pass, and tell nobody."""
        self._change("hole")

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._change("cut")
        self._break_all()

    def close(self) -> None:
        """End the proxy with all of its connections."""
        self._ended = True
        self.cut()
        for thread in self._threads:
            thread.join()

    def _change(self, mode: Literal["healed", "hole", "cut"]) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def _break_all(self) -> None:
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait_out_hole(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._mode != "hole")

    def _accept(self) -> None:
        with self._listener:
            while not self._ended:
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    continue
                if self._mode == "cut":
                    client.close()
                else:
                    self._threads.append(threading.Thread(target=self._carry, args=(client,)))
                    self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        """Carry one connection: this thread one way, another the other way."""
        with client:
            self._wait_out_hole()
            try:
                server = socket.create_connection(self._target)
            except OSError:
                return
            with server:
                self._open |= {client, server}
                if self._mode == "cut":
                    self._break_all()
                back = threading.Thread(target=self._pump, args=(server, client))
                back.start()
                self._pump(client, server)
                back.join()
                self._open -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._wait_out_hole()
                sink.sendall(chunk)
        self._wait_out_hole()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
