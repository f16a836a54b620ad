"""Every dialog, in memory at every chunk size, and against a live node."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from dialogs.connection import WHOLE, MemoryConnection
from dialogs.dialog import Dialog, perform, read
from dialogs.memory import House, factory_of, world_of
from support import wait_until

from node.lab import Lab
from store import credential, identity
from store.domain import MailStore
from store.names import NameSource

DIALOGS = [read(path) for path in sorted(Path(__file__).parent.rglob("*.dialog"))]
SIZES = (WHOLE, 1, 2, 3, 5, 64)

every_dialog = pytest.mark.parametrize("dialog", DIALOGS, ids=[dialog.name for dialog in DIALOGS])


class MemoryClient:
    def __init__(self, connection: MemoryConnection) -> None:
        self.connection = connection
        self.position = 0

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def line(self) -> bytes:
        end = self.connection.received.find(b"\r\n", self.position)
        assert end >= 0, f"the server said nothing more than {self.connection.received[self.position :]!r}"
        start, self.position = self.position, end + 2
        return self.connection.received[start:end]

    def ended(self) -> bool:
        return self.connection.closed and self.silent()

    def silent(self) -> bool:
        return self.position == len(self.connection.received)

    def half(self) -> None:
        self.connection.half()

    def drop(self) -> None:
        self.connection.drop()


class MemoryPlace:
    def __init__(self, root: Path, size: int) -> None:
        root.mkdir()
        self.house = House.build(str(root))
        self.world = world_of(self.house)
        self.factory = factory_of(self.world)
        self.size = size

    def connect(self) -> MemoryClient:
        return MemoryClient(MemoryConnection(self.factory, self.size))

    def free(self, mailbox: str) -> None:
        assert mailbox not in self.world.claims.by_mailbox, "somebody claims it"


class SocketClient:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"the server said {line!r} and closed"
        return line[:-2]

    def ended(self) -> bool:
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def silent(self) -> bool:
        if self.file.closed:
            return True
        self.socket.setblocking(False)
        try:
            return not self.file.peek(1)
        except ConnectionResetError:
            return True
        finally:
            self.socket.settimeout(20)

    def half(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        self.file.close()
        self.socket.close()


class LivePlace:
    """One node process; each dialog has a domain of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        store_id = identity.load(str(lab.store)).store_id
        key = identity.derived_key(lab.guid, store_id, "credentials")
        self.house = House(MailStore(str(lab.store), store_id, NameSource()), key)
        self.admin = lab.admin()
        self.clients: list[SocketClient] = []

    def connect(self) -> SocketClient:
        self.clients.append(SocketClient(self.lab.nodes[0].ports.pop3))
        return self.clients[-1]

    def end(self) -> None:
        while self.clients:
            self.clients.pop().drop()

    def free(self, mailbox: str) -> None:
        wait_until(
            lambda: mailbox not in {claim.mailbox for claim in self.admin.claims()},
            or_fail=f"the claim on {mailbox} was never dropped",
        )


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlace]:
    lab = Lab(tmp_path_factory.mktemp("dialogs") / "lab", nodes=1)
    lab.directory.mkdir()
    try:
        lab.start()
        yield LivePlace(lab)
    finally:
        lab.stop()


@every_dialog
def test_in_memory_at_every_chunk_size(dialog: Dialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    transcripts = {}
    for size in SIZES:
        place = MemoryPlace(tmp_path / str(size), size)
        clients = perform(dialog, place)
        transcripts[size] = [client.connection.received for client in clients.values()]
        for client in clients.values():
            client.drop()
        assert not place.world.claims.by_mailbox, "a claim outlived its session"
        assert not place.factory.sessions
    for size in SIZES:
        assert transcripts[size] == transcripts[WHOLE], f"in chunks of {size} the server said something else"


@pytest.mark.cluster
@every_dialog
def test_at_a_live_node(dialog: Dialog, live: LivePlace) -> None:
    try:
        perform(dialog, live, f"dlg-{DIALOGS.index(dialog):03d}.org")
    finally:
        live.end()


@pytest.mark.cluster
def test_a_client_that_reads_late_gets_everything_from_a_live_node(live: LivePlace) -> None:
    live.house.mailbox("slow@late.example", "lovelace")
    live.house.message("slow@late.example", b"A: b\n\n" + b"0123456789abcdef\n" * 100_000)
    slow, other = live.connect(), live.connect()
    try:
        slow.send(b"USER slow@late.example\r\nPASS lovelace\r\n" + b"RETR 1\r\n" * 8 + b"QUIT\r\n")
        for line in (b"CAPA\r\n", b"QUIT\r\n"):
            other.send(line)
        assert other.file.read().endswith(b"+OK bye\r\n"), "one client's sloth must not hold up another"
        received = slow.file.read()
        assert received.count(b"\r\n0123456789abcdef") == 800_000
        assert received.endswith(b".\r\n+OK bye\r\n")
    finally:
        live.end()


def test_there_are_enough_dialogs_and_each_says_what_it_shows() -> None:
    assert len(DIALOGS) >= 60
    assert all(len(dialog.shows) > 10 for dialog in DIALOGS)


@pytest.mark.parametrize("text", ["no comment\n1 C QUIT\n", "# comment\n1 C\n2 X hello\n", ""])
def test_a_dialog_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.dialog"
    path.write_text(text)
    with pytest.raises(ValueError):
        read(path)


def test_a_dialog_that_does_not_come_true_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "false.dialog"
    path.write_text("# expects the wrong reply\n1 C CAPA\n1 S -ERR\n")
    with pytest.raises(AssertionError, match=r"false\.dialog:3: 1 S -ERR"):
        perform(read(path), MemoryPlace(tmp_path / "store", WHOLE))
