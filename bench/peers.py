"""The servers under measurement, on the same messages: one Mailroot node, and Dovecot where it is installed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from node.lab import Lab, free_port
from store.address import Address
from store.credential import Credential, seal
from store.identity import derived_key
from store.mailbox import write_setting

DOMAIN = "bench.example"
PASSWORD = "pw"
LINE = b"0123456789" * 7 + b"abcdef\r\n"
MESSAGE = b"From: a@example.net\r\nSubject: bench\r\n\r\n" + LINE * 131  # 10 KiB
DOVECOT = "/usr/sbin/dovecot"
TICKS = os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int, *, with_children: bool = False) -> float:
    """Return the processor seconds of a process, user and system, of its ended children too if asked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11 : 15 if with_children else 13])) / TICKS


def resident_octets(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Mailroot:
    """One node with its ledger. Its ledger's own processor time is not the node's and not counted."""

    name = "mailroot"
    domain = f"@{DOMAIN}"

    def __init__(self, directory: Path) -> None:
        self.lab = Lab(directory, nodes=1)
        self.lab.start()
        self.node = self.lab.nodes[0]
        self.port = self.node.ports.pop3
        self.admin = self.lab.admin()
        self.admin.add_domain(DOMAIN)
        store = self.admin.store
        # One derivation for all: what is measured is logins, not the making of mailboxes.
        key = derived_key(self.lab.guid, store.store_id, "credentials")
        self._credential = seal(Credential.of(PASSWORD), key, store.store_id)

    def fill(self, name: str, messages: int, message: bytes = MESSAGE) -> None:
        """Make a mailbox with messages."""
        store = self.admin.store
        mailbox = store.add_mailbox(Address.parse(f"{name}@{DOMAIN}"))
        write_setting(mailbox.path, store.names, "auth", self._credential)
        for _ in range(messages):
            mailbox.deliver(store.names, [message])

    @property
    def pid(self) -> int:
        """Return the node's process."""
        if self.node.process is None:
            raise RuntimeError("the node does not run")
        return self.node.process.pid

    def seconds(self) -> float:
        """Return the node's processor seconds, of all its threads."""
        return process_seconds(self.pid)

    def stop(self) -> None:
        """End everything."""
        self.lab.stop()


class Dovecot:
    """Dovecot with bench/dovecot.conf; its processor time is that of its whole process tree."""

    name = "dovecot"
    domain = ""

    def __init__(self, directory: Path, mailboxes: int, messages: int) -> None:
        directory.chmod(0o755)
        self.port = free_port()
        account = pwd.getpwnam("nobody")
        template = (Path(__file__).parent / "dovecot.conf").read_text()
        config = directory / "dovecot.conf"
        config.write_text(template.format(directory=directory, port=self.port, uid=account.pw_uid, gid=account.pw_gid))
        for number in range(mailboxes):
            box = directory / "mail" / f"u{number}"
            for part in ("cur", "new", "tmp"):
                (box / part).mkdir(parents=True)
            for count in range(messages):
                # S= and W= spare Dovecot the look at each file; W is the size with CRLF, which ours has already.
                size = len(MESSAGE)
                (box / "cur" / f"{1700000000 + count}.M{count}P1.bench,S={size},W={size}:2,S").write_bytes(MESSAGE)
        for part in ("index", "home", "mail"):
            (directory / part).mkdir(exist_ok=True)
            subprocess.run(["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", str(directory / part)], check=True)
        self._master = subprocess.Popen([DOVECOT, "-F", "-c", str(config)])
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            if time.monotonic() > deadline or self._master.poll() is not None:
                raise RuntimeError(f"Dovecot does not start: {(directory / 'dovecot.log').read_text()[-1000:]}")
            time.sleep(0.05)

    def seconds(self) -> float:
        """Return the processor seconds of the master, its children, and those of them that ended."""
        children = Path(f"/proc/{self._master.pid}/task/{self._master.pid}/children").read_text().split()
        return process_seconds(self._master.pid, with_children=True) + sum(
            process_seconds(int(child)) for child in children
        )

    def stop(self) -> None:
        """End everything."""
        self._master.send_signal(signal.SIGTERM)
        self._master.wait(20)


def dovecot_is_installed() -> bool:
    """Tell whether the peer can be measured."""
    return shutil.which(DOVECOT) is not None
