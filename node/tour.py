"""
The tour of the lab: a screen for a newcomer, and a story that shows that the cluster keeps its promises.

Guarantees  nothing is left behind: no process, no file.
Knows       the lab, and the clients of the standard library.
"""

import contextlib
import os
import poplib
import shutil
import signal
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from node.lab import ACCOUNTS, DOMAIN, Lab, accepts, deliver, login, wait_until


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
        wait_until(lambda: accepts(third, "new@example.org"), "node 3 never learned the domain")
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


def _refusal(port: int, user: str, password: str) -> str:
    """Return why a login is refused, or "" where it is not."""
    try:
        login(port, user, password).quit()
    except (poplib.error_proto, OSError) as error:
        return str(error)
    return ""
