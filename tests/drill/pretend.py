"""
A pretended cluster: one process that speaks POP3 and LMTP, in which "nodes" are labels on connections.

It can be told to misbehave, so that tests see whether the drill notices. Everything is in memory and ends at once.
"""

import contextlib
import itertools
import socket
import socketserver
import threading
from collections.abc import Callable

from node.drill.place import Unready

NODES = ("node1", "node2", "node3")


class Store:
    """Mailboxes, claims and connections of the pretended cluster."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.passwords: dict[str, str] = {}
        self.messages: dict[str, dict[str, bytes]] = {}
        self.claims: dict[str, str] = {}
        self.dead: set[str] = set()
        self.connections: dict[str, set[socket.socket]] = {node: set() for node in NODES}
        self.answers_to_mail = "250"
        self.mute = False
        self.removes_without_quit = False
        self.has_refused = threading.Event()
        self._uids = itertools.count(1)
        self._around = itertools.cycle(NODES)

    def place_connection(self, connection: socket.socket) -> str:
        with self.lock:
            node = next(node for node in self._around if node not in self.dead)
            self.connections[node].add(connection)
            return node

    def deliver(self, mailbox: str, content: bytes) -> str:
        with self.lock:
            uid = f"P3{next(self._uids):08x}"
            self.messages[mailbox][uid] = content
            return uid


class Conversation(socketserver.StreamRequestHandler):
    """Lines in, lines out."""

    server: "Server"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        store = self.server.store
        node = store.place_connection(self.request)
        try:
            with contextlib.suppress(OSError):
                self.converse(store, node)
        finally:
            store.connections[node].discard(self.request)

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def words(self) -> list[str]:
        if not (line := self.rfile.readline()):
            raise ConnectionResetError
        return line.decode().split()


class Pop3(Conversation):
    def converse(self, store: Store, node: str) -> None:
        if store.mute:
            self.say("-ERR [SYS/TEMP] not now")
            store.has_refused.set()
            return
        self.say("+OK")
        mailbox = self.words()[1]
        self.say("+OK")
        password = self.words()[1]
        with store.lock:
            if mailbox in store.claims:
                self.say("-ERR [IN-USE] somebody else has it")
                return
            assert store.passwords[mailbox] == password
            store.claims[mailbox] = node
        marked: list[str] = []
        try:
            self.say("+OK")
            self.session(store, mailbox, marked)
        except OSError:
            if store.removes_without_quit:
                self.remove(store, mailbox, marked)
        finally:
            with store.lock:
                if store.claims.get(mailbox) == node:
                    del store.claims[mailbox]

    @staticmethod
    def remove(store: Store, mailbox: str, marked: list[str]) -> None:
        with store.lock:
            for uid in marked:
                store.messages[mailbox].pop(uid, None)

    def session(self, store: Store, mailbox: str, marked: list[str]) -> None:
        listed = dict(store.messages[mailbox])
        uids = list(listed)
        while True:
            match self.words():
                case ["UIDL"]:
                    self.say("\r\n".join(["+OK", *(f"{n} {uid}" for n, uid in enumerate(uids, 1)), "."]))
                case ["RETR", number]:
                    self.say("+OK")
                    self.wfile.write(listed[uids[int(number) - 1]] + b".\r\n")
                case ["DELE", number]:
                    marked.append(uids[int(number) - 1])
                    self.say("+OK")
                case ["NOOP"]:
                    self.say("+OK")
                case _:
                    self.remove(store, mailbox, marked)
                    del store.claims[mailbox]
                    self.say("+OK bye")
                    return


class Lmtp(Conversation):
    def converse(self, store: Store, _node: str) -> None:
        self.say("220 here")
        mailbox = ""
        while True:
            words = self.words()
            match words[0].upper():
                case "RCPT":
                    mailbox = words[1][len("TO:<") : -1]
                    self.say(f"{store.answers_to_mail} 2.1.5 answer")
                case "DATA":
                    self.say("354 go on")
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    self.say(f"250 2.0.0 {store.deliver(mailbox, content)}")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 ok")


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, kind: type[Conversation], store: Store) -> None:
        super().__init__(("127.0.0.1", 0), kind)
        self.store = store
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class PretendedPlace:
    """A place whose faults are what the test says; by default the pretended cluster bears them all."""

    name = "pretended"
    nodes = NODES

    def __init__(self, *, misbehave: Callable[[Store], None] = lambda _store: None) -> None:
        self.store = Store()
        self.calls: list[str] = []
        self.is_running = False
        self._misbehave = misbehave
        self._servers: list[Server] = []

    @property
    def pop3(self) -> tuple[str, int]:
        return self._servers[0].server_address

    @property
    def lmtp(self) -> tuple[str, int]:
        return self._servers[1].server_address

    def start(self) -> None:
        self.is_running = True
        self._servers = [Server(Pop3, self.store), Server(Lmtp, self.store)]

    def stop(self) -> None:
        for node in self.nodes:
            self._break_connections(node)
        for server in self._servers:
            server.end()
        self.is_running = False

    def cannot(self, fault: str) -> str:
        return "there is no network to cut" if fault == "cut-node-from-clients" else ""

    def add_mailboxes(self, passwords: dict[str, str]) -> None:
        for mailbox, password in passwords.items():
            self.store.passwords[mailbox] = password
            self.store.messages[mailbox] = {}

    def holder(self, mailbox: str) -> str:
        return self.store.claims.get(mailbox, "")

    def wait_until_ready(self) -> None:
        if self.store.dead:
            raise Unready(f"{sorted(self.store.dead)} do not run")

    def kill_node(self, node: str) -> None:
        self._break(f"kill {node}")
        self.store.dead.add(node)
        self._break_connections(node)

    def _break_connections(self, node: str) -> None:
        for connection in list(self.store.connections[node]):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop_node(self, node: str) -> int:
        self._break(f"stop {node}")
        self.store.dead.add(node)
        return 0

    def start_node(self, node: str) -> None:
        self.calls.append(f"start {node}")
        self.store.dead.discard(node)

    def wipe_ledger(self) -> None:
        self._break("wipe the ledger")

    def _break(self, what: str) -> None:
        self.calls.append(what)
        self._misbehave(self.store)


class Silent:
    """A display that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, scenario: str, _sentence: str, steps: int) -> None:
        self.said.append(f"begin {scenario}")
        self.steps_left = steps

    def step(self, text: str) -> None:
        self.said.append(text)
        self.steps_left -= 1

    def tick(self, *counts: int) -> None:
        pass

    def end(self, outcome) -> None:
        self.said.append(f"end {outcome.scenario}")
