"""
The two servers under measurement, each with the same mailboxes of the same messages, in a directory that goes away.

Guarantees  only processes that were started here are ended. What Mailroot's mailboxes hold is written in the
            store's own layout, without its fsyncs: the benchmark does not measure its own preparation.
Knows       node.lab, the store's names, Maildir, Dovecot's configuration (dovecot.conf beside this file).
"""

import grp
import os
import pwd
import shutil
import signal
import socket
import string
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import usage
from load import Job, message

from node import config
from node.lab import Lab, free_port
from store import identity
from store.address import directory_name
from store.credential import Credential, seal
from store.message import message_name
from store.names import NameSource

DOMAIN = "bench.example"
PASSWORD = "correct-horse"
DOVECOT = "/usr/sbin/dovecot"
DOVECOT_LMTP = "/usr/lib/dovecot/lmtp"
INSTALL_DOVECOT = "Dovecot is not installed, so there is no peer in this run; install it with: apt-get install dovecot-pop3d dovecot-lmtpd"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
NOBODY = 65_534  # Dovecot refuses to touch mail as root.
LMTP_CLIENTS = 8


class Mailboxes(NamedTuple):
    """``count`` mailboxes of ``messages`` messages; those that ``share`` a file hold links to one and the same."""

    prefix: str
    count: int
    messages: int
    octets: int
    share: bool

    @property
    def users(self) -> list[str]:
        return [f"{self.prefix}{number:05d}@{DOMAIN}" for number in range(self.count)]

    def job(self, kind: str, port: int, sessions: int, clients: int) -> Job:
        return Job(kind, port, self.users, PASSWORD, self.messages, self.octets, sessions, clients)

    def fill(self, directory: Path, names: Iterable[str], source: Path) -> None:
        """Put the messages into one mailbox's directory under these names. ``source`` is the file they share."""
        content = message(self.octets)
        if self.share and not source.exists():
            source.write_bytes(content)
        for name in names:
            if self.share:
                os.link(source, directory / name)
            else:
                (directory / name).write_bytes(content)


class Mailroot:
    """One Mailroot node, its ledger and its store."""

    name = "Mailroot"
    lmtp_port: int | None

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.lab = Lab(directory, nodes=1)
        node = self.lab.nodes[0]
        self.pop3_port, self.lmtp_port = node.ports.pop3, node.ports.lmtp

    def start(self, sets: Iterable[Mailboxes]) -> None:
        """Start with these mailboxes."""
        self.lab.start()
        self.lab.admin().add_domain(DOMAIN)
        settings = config.load(str(self.lab.config_path))
        found = identity.load(str(self.lab.store))
        key = identity.derived_key(settings.guid, found.store_id, "credentials")
        sealed = seal(Credential.of(PASSWORD), key, found.store_id)
        names = NameSource()
        for mailboxes in sets:
            for number, user in enumerate(mailboxes.users):
                path = self.lab.store / DOMAIN / directory_name(user.partition("@")[0])
                path.mkdir()
                (path / f".auth-000001-{names.next_uid()}").write_bytes(sealed)
                octets = mailboxes.octets
                source = self.lab.directory / f"{mailboxes.prefix}-{number}"
                fresh = (message_name(names.next_uid(), octets) for _ in range(mailboxes.messages))
                mailboxes.fill(path, fresh, source)

    @property
    def pid(self) -> int:
        return self.lab.nodes[0].process.pid

    def cpu_seconds(self) -> float:
        """Return the processor time of the node process, all its threads."""
        return usage.cpu_seconds(self.pid, whole_tree=False)

    def ledger_cpu_seconds(self) -> float:
        """Return the processor time of everything else that was started: the embedded Valkey."""
        mine = [pid for pid in usage.tree(os.getpid()) if b"valkey-server" in _command(pid)]
        return sum(usage.cpu_seconds(pid, whole_tree=False) for pid in mine)

    def memory_kib(self) -> int:
        """Return the node's resident memory."""
        return usage.resident_kib(self.pid)

    def stop(self) -> None:
        """End the node and the ledger."""
        self.lab.stop()


class Dovecot:
    """Dovecot from dovecot.conf; ``spare`` and ``limit`` are its numbers of POP3 processes."""

    name = "Dovecot"

    def __init__(self, directory: Path, *, spare: int, limit: int) -> None:
        self.directory = directory
        self._spare, self._limit = spare, limit
        self.pop3_port = free_port()
        self.lmtp_port = free_port() if Path(DOVECOT_LMTP).exists() else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, sets: Iterable[Mailboxes]) -> None:
        """Start with these mailboxes."""
        self.directory.mkdir()
        (self.directory / "run").mkdir()
        sets = list(sets)
        uid, gid = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        users = [user for mailboxes in sets for user in mailboxes.users]
        (self.directory / "users").write_text("".join(f"{user}:{{PLAIN}}{PASSWORD}\n" for user in users))
        for mailboxes in sets:
            for number, user in enumerate(mailboxes.users):
                self._fill(mailboxes, number, user, uid, gid)
        path = self.directory / "dovecot.conf"
        path.write_text(self._configuration(uid, gid))
        with (self.directory / "stderr").open("wb") as log:
            command = [DOVECOT, "-F", "-c", str(path)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        self._wait_until_ready(log.name)

    def _fill(self, mailboxes: Mailboxes, number: int, user: str, uid: int, gid: int) -> None:
        home = self.directory / "mail" / DOMAIN / user.partition("@")[0]
        for name in ("cur", "new", "tmp"):
            (home / "Maildir" / name).mkdir(parents=True)
        octets = mailboxes.octets
        names = (f"1700000000.M{n:06d}P{number}.bench,S={octets},W={octets}:2," for n in range(mailboxes.messages))
        mailboxes.fill(home / "Maildir" / "cur", names, self.directory / f"{mailboxes.prefix}-{number}")
        for path in (home, home / "Maildir", *(home / "Maildir").iterdir()):
            os.chown(path, uid, gid)

    def _configuration(self, uid: int, gid: int) -> str:
        me, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        is_root = os.geteuid() == 0
        values: dict[str, object] = {
            "directory": self.directory,
            "run": self.directory / "run",
            "protocols": "pop3 lmtp" if self.lmtp_port else "pop3",
            "login_user": "dovenull" if is_root else me,
            "internal_user": "dovecot" if is_root else me,
            "internal_group": "dovecot" if is_root else group,
            "mail_uid": uid,
            "mail_gid": gid,
            "cores": os.cpu_count(),
            "spare": self._spare,
            "limit": self._limit,
            "lmtp_spare": LMTP_CLIENTS,
            "pop3_port": self.pop3_port,
            "lmtp_port": self.lmtp_port,
        }
        here = Path(__file__).parent
        lmtp = (here / "dovecot-lmtp.conf").read_text() if self.lmtp_port else ""
        values["lmtp"] = string.Template(lmtp).substitute(values)
        return string.Template((here / "dovecot.conf").read_text()).substitute(values)

    def _wait_until_ready(self, stderr: str) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.pop3_port), timeout=2) as probe:
                    if probe.recv(100).startswith(b"+OK"):
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Dovecot does not start: {Path(stderr).read_text()}\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """Return the end of Dovecot's log."""
        path = self.directory / "dovecot.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def cpu_seconds(self) -> float:
        """Return the processor time of all of Dovecot's processes, those that ended included."""
        return usage.cpu_seconds(self._process.pid, whole_tree=True)

    def memory_kib(self) -> int:
        """Return the memory of all of Dovecot's processes, shared pages once."""
        return usage.proportional_kib(self._process.pid)

    def stop(self) -> None:
        """End Dovecot's master; it ends its children, and those that it left are ended too."""
        if self._process is None:
            return
        pids = usage.tree(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while left := [pid for pid in pids if b"dovecot" in _command(pid)]:
            if time.monotonic() > deadline:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.05)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def dovecot_version() -> str | None:
    """Return the version of the Dovecot on this machine, or None where there is none to measure."""
    if not shutil.which(DOVECOT) or not Path("/usr/lib/dovecot/pop3").exists():
        return None
    return subprocess.run([DOVECOT, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
