"""A live node behind a proxy: the client's own address in every line and header, and nobody else is believed."""

import contextlib
import re
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from running import running
from scene import Scene

from node.introductions import V2_OCTETS_MAX
from node.lab import ACCOUNTS, DOMAIN, Lab, LabNode, wait_until

pytestmark = pytest.mark.cluster

PROXY, STRANGER = "127.0.0.2", "127.0.0.3"  # Linux has all of 127/8 on its loopback.
ANSWER_SECONDS_MAX = 60.0
TCP_REPAIR = 19  # linux/tcp.h: a socket in this state is closed without a word to the other side.
CLIENT = "203.0.113.9"
V1 = f"PROXY TCP4 {CLIENT} 192.0.2.1 40000 110\r\n".encode()
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + socket.inet_aton(CLIENT) + socket.inet_aton("192.0.2.1") + b"\x9c\x40\x00\x6e"
V2_V6 = (
    SIGNATURE
    + b"\x21\x21\x00\x24"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 40000, 110)
)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
PROTOCOLS = ("pop3", "lmtp", "smtp")


class TrustingLab(Lab):
    """A lab whose node believes one address."""

    def configure(self, node: LabNode, **changes: object) -> None:
        super().configure(node, trusted_proxies=[PROXY, "fd00::/8"], **changes)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running(TrustingLab(tmp_path_factory.mktemp("lab"), nodes=1)) as made:
        yield made


@pytest.fixture
def node(scene: Scene) -> LabNode:
    return scene.node(1)


class Wire:
    """A connection to one of a node's ports, from an address of our choice."""

    def __init__(self, node: LabNode, protocol: str, *, source: str = PROXY, first: bytes = b"") -> None:
        port = {"pop3": node.ports.pop3, "lmtp": node.ports.lmtp, "smtp": node.ports.smtp}[protocol]
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX, source_address=(source, 0)
        )
        self._file = self.socket.makefile("rb")
        self.socket.sendall(first)

    def line(self) -> str:
        """The next line; "" at the end."""
        try:
            return self._file.readline().decode()
        except ConnectionResetError:
            return ""

    def say(self, text: str) -> str:
        """Send a line; return the last line of its answer."""
        self.socket.sendall(text.encode() + b"\r\n")
        while re.match(r"\d\d\d-", line := self.line()):
            pass
        return line

    def message(self) -> str:
        """The rest of an answer of several lines."""
        lines = []
        while (line := self.line()) not in (".\r\n", ""):
            lines.append(line)
        return "".join(lines)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Log:
    """What a node writes from now on."""

    def __init__(self, node: LabNode) -> None:
        self._path = Path(node.log_path)
        self._from = len(self._path.read_text())

    @property
    def lines(self) -> list[str]:
        return self._path.read_text()[self._from :].splitlines()

    def wait_for(self, text: str) -> str:
        wait_until(lambda: any(text in line for line in self.lines), f"no line has {text!r}: {self.lines}", 60.0)
        return next(line for line in self.lines if text in line)


def metric(node: LabNode, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/metrics", timeout=ANSWER_SECONDS_MAX) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"mailroot_{name}[ {{]", line))


def deliver(wire: Wire, hello: str, recipient: str) -> str:
    """Deliver a message on a connection that has greeted; return the last reply."""
    for command in (f"{hello} there", "MAIL FROM:<a@example.net>", f"RCPT TO:<{recipient}>"):
        assert wire.say(command).startswith("250"), command
    assert wire.say("DATA").startswith("354")
    return wire.say("Subject: hello\r\n\r\nyou\r\n.")


@pytest.mark.parametrize(
    ("header", "client"), [(V1, CLIENT), (V2, CLIENT), (V2_V6, "2001:db8::9"), (LOCAL, PROXY)], ids=str
)
def test_a_session_is_logged_with_its_clients_address(node: LabNode, header: bytes, client: str):
    log = Log(node)
    with Wire(node, "pop3", first=header) as wire:
        assert wire.line().startswith("+OK")
        assert wire.say(f"USER ada@{DOMAIN}").startswith("+OK")
        assert wire.say(f"PASS {ACCOUNTS['ada']}").startswith("+OK")
        assert wire.say("QUIT").startswith("+OK")
    assert f" peer={client} user=ada@{DOMAIN} end=quit commands=3 " in log.wait_for(" session ")


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(("protocol", "hello"), [("lmtp", "LHLO"), ("smtp", "EHLO")])
def test_a_delivery_is_logged_and_traced_with_its_clients_address(
    scene: Scene, node: LabNode, protocol: str, hello: str, header: bytes
):
    log = Log(node)
    mailbox = scene.mailbox(f"traced-{protocol}-{len(header)}")
    with Wire(node, protocol, first=header) as wire:
        assert wire.line().startswith("220")
        assert deliver(wire, hello, mailbox).startswith("250")
    assert f" peer={CLIENT} " in log.wait_for(f" recipient={mailbox} ")
    with Wire(node, "pop3", first=V1) as wire:
        assert wire.line().startswith("+OK")
        for command in (f"USER {mailbox}", f"PASS {scene.password(mailbox)}", "RETR 1"):
            assert wire.say(command).startswith("+OK")
        assert f"Received: from there ([{CLIENT}])\r\n" in wire.message()


# Of its own: the log's lines of clients before may still be on their way.
CLAIMED = "203.0.113.77"


@pytest.mark.parametrize(
    "header",
    [V1.replace(CLIENT.encode(), CLAIMED.encode()), V2.replace(socket.inet_aton(CLIENT), socket.inet_aton(CLAIMED))],
    ids=["v1", "v2"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_strangers_header_is_an_unknown_command(node: LabNode, protocol: str, header: bytes):
    log = Log(node)
    with Wire(node, protocol, source=STRANGER, first=header) as wire:
        assert wire.line().startswith(("+OK", "220")), "a stranger must not be waited for"
        assert wire.line().startswith(("-ERR", "500"))
        wire.say("QUIT")
    if protocol == "pop3":
        log.wait_for(f"peer={STRANGER} ")
    assert not any(CLAIMED in line for line in log.lines)


def test_a_stranger_is_served_without_a_header(scene: Scene, node: LabNode):
    log = Log(node)
    mailbox = scene.mailbox("direct")
    with Wire(node, "lmtp", source=STRANGER) as wire:
        assert wire.line().startswith("220")
        assert deliver(wire, "LHLO", mailbox).startswith("250")
    assert f" peer={STRANGER} " in log.wait_for(f" recipient={mailbox} ")


def test_checks_leave_no_line_and_count_as_no_session(node: LabNode):
    log = Log(node)
    before = metric(node, "sessions_total")
    for protocol in PROTOCOLS:
        for first in (b"", V1[:9], LOCAL, b"PROXY UNKNOWN\r\n", V2):
            Wire(node, protocol, first=first).close()
        # As HAProxy closes the connection of a check: a reset.
        wire = Wire(node, protocol, first=LOCAL)
        assert wire.line()
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.close()
    wait_until(lambda: metric(node, "sessions_open") == 0, "a check's connection stays", 60.0)
    with Wire(node, "pop3", source=STRANGER) as wire:
        assert wire.line()
        wire.say("QUIT")
    log.wait_for(f"peer={STRANGER} ")
    assert [line for line in log.lines if f"peer={STRANGER} " not in line] == []
    wait_until(lambda: metric(node, "sessions_total") == before + 1, "a check was counted as a session", 60.0)


def test_a_proxy_without_a_header_is_cut_off_and_the_log_says_what_to_do(node: LabNode):
    log = Log(node)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Wire(node, protocol)) for protocol in PROTOCOLS]
        assert [wire.line() for wire in silent] == ["", "", ""], "one was greeted"
    for protocol in PROTOCOLS:
        assert "send-proxy-v2" in log.wait_for(f"proxy_refused port={protocol} peer={PROXY} ")


def test_a_header_that_trickles_in_is_not_waited_for_for_ever(node: LabNode):
    log = Log(node)
    with Wire(node, "lmtp") as wire:
        ended = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                for octet in V1[:-2] * 100:
                    if ended.wait(0.2):
                        return
                    wire.socket.sendall(bytes([octet]))

        trickling = threading.Thread(target=trickle)
        trickling.start()
        assert wire.line() == ""
        ended.set()
        trickling.join()
    assert "no whole PROXY header within" in log.wait_for("proxy_refused port=lmtp ")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "garbage", [b"USER secret-of-nobody\r\n", b"PROXY TCP4 nobody\r\n", SIGNATURE + b"\x21\x11\xff\xff"]
)
def test_garbage_is_cut_off(node: LabNode, protocol: str, garbage: bytes):
    log = Log(node)
    with Wire(node, protocol, first=garbage) as wire:
        assert wire.line() == ""
    line = log.wait_for(f"proxy_refused port={protocol} peer={PROXY} ")
    assert "nobody" not in line
    assert len(line) < V2_OCTETS_MAX


def test_a_proxy_that_vanishes_without_a_word_does_not_keep_its_clients_mailbox(scene: Scene, node: LabNode):
    """A cut cable sends no FIN; the kernel's probes find out long before the autologout would."""
    mailbox = scene.mailbox("vanished")
    log = Log(node)
    with Wire(node, "pop3", first=V1) as wire:
        assert wire.line().startswith("+OK")
        for command in (f"USER {mailbox}", f"PASS {scene.password(mailbox)}"):
            assert wire.say(command).startswith("+OK")
        assert "[IN-USE]" in scene.refusal(node, mailbox)
        # Acknowledge all that was heard: else the node's kernel sends it again, and hears that there is no connection.
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        try:
            wire.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            pytest.skip("only root can make a connection vanish (CAP_NET_ADMIN)")
    assert " end=lost " in log.wait_for(f"peer={CLIENT} user={mailbox} ")
    assert scene.refusal(node, mailbox) == ""
