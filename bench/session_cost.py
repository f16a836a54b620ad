"""
What a POP3 session costs: CPU-ms of one node process, beside Dovecot tuned and with its session lock.

    check   USER PASS STAT UIDL LIST QUIT on 20 messages of 10 KiB
    fetch   the same and three RETR

The rounds alternate between the servers, so that a machine whose speed drifts moves both; read the ratios.
Passwords were verified before (both servers remember them). bench/README.md explains the rest.
"""

import argparse
import json
import os
import poplib
import resource
import shutil
import smtplib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import DOMAIN, MESSAGE, PASSWORD, Dovecot, Mailroot, dovecot_is_installed, resident_octets

MAILBOXES, MESSAGES = 200, 20
KINDS = ("check", "fetch")
IDLE_SESSIONS = 2000
LARGE = 20_000
DELIVERIES = 500


def run_load(port: int, kind: str, sessions: int, domain: str) -> float:
    """Run the clients in a process of their own; return the seconds."""
    load = [
        sys.executable,
        str(Path(__file__).parent / "load.py"),
        str(port),
        kind,
        str(sessions),
        str(MAILBOXES),
        domain,
    ]
    return float(subprocess.run(load, check=True, stdout=subprocess.PIPE).stdout)


def measure(servers: list[Mailroot | Dovecot], sessions: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return for each server and kind the CPU-ms per session, and for ``<kind>/s`` the sessions per second, of each round."""
    figures: dict[str, dict[str, list[float]]] = {server.name: {} for server in servers}
    for server in servers:
        for kind in KINDS:
            run_load(server.port, kind, MAILBOXES, server.domain)
    for number in range(rounds):
        for kind in KINDS:
            for server in servers:
                print(f"\rround {number + 1}/{rounds} {kind} {server.name}   ", end="", file=sys.stderr, flush=True)
                before = server.seconds()
                seconds = run_load(server.port, kind, sessions, server.domain)
                cost = (server.seconds() - before) * 1000 / sessions
                figures[server.name].setdefault(kind, []).append(cost)
                figures[server.name].setdefault(f"{kind}/s", []).append(sessions / seconds)
    print("\r\x1b[K", end="", file=sys.stderr)
    return figures


def idle_octets(mailroot: Mailroot) -> float:
    """Return the node's memory for one idle session that has logged in."""
    for number in range(IDLE_SESSIONS):
        mailroot.fill(f"idle{number}", 0)
    sockets = []
    before = resident_octets(mailroot.pid)
    for number in range(IDLE_SESSIONS):
        client = socket.create_connection(("127.0.0.1", mailroot.port))
        reader = client.makefile("rb")
        reader.readline()
        for line in (f"USER idle{number}@{DOMAIN}", f"PASS {PASSWORD}"):
            client.sendall(f"{line}\r\n".encode())
            reader.readline()
        sockets.append(client)
    after = resident_octets(mailroot.pid)
    for client in sockets:
        client.close()
    return (after - before) / IDLE_SESSIONS


def large_milliseconds(mailroot: Mailroot) -> float:
    """Return the time from login to the answer of STAT on a mailbox of 20,000 messages, the median of nine."""
    mailroot.fill("large", 1)
    path = mailroot.admin.store.root + f"/{DOMAIN}/P3_large.mbx"
    names = mailroot.admin.store.names
    for _ in range(LARGE - 1):
        os.close(os.open(f"{path}/P3{names.next_uid()}-{len(MESSAGE)}.eml", os.O_CREAT | os.O_WRONLY, 0o640))
    times = []
    for _ in range(10):
        client = poplib.POP3("127.0.0.1", mailroot.port, timeout=60)
        client.user(f"large@{DOMAIN}")
        began = time.monotonic()
        client.pass_(PASSWORD)
        client.stat()
        times.append((time.monotonic() - began) * 1000)
        client.quit()
    return statistics.median(times[1:])


def delivery_milliseconds(mailroot: Mailroot) -> float:
    """Return the CPU-ms of the node for one delivery by LMTP, one connection, with every fsync."""
    before = mailroot.seconds()
    with smtplib.LMTP("127.0.0.1", mailroot.node.ports.lmtp, local_hostname="bench") as client:
        for number in range(DELIVERIES):
            client.sendmail("a@example.net", [f"u{number % MAILBOXES}@{DOMAIN}"], MESSAGE)
    return (mailroot.seconds() - before) * 1000 / DELIVERIES


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """Return the figures as text: medians, with the least and the most in brackets."""
    lines = [f"{'':<10} {'check CPU-ms':>22} {'fetch CPU-ms':>22} {'check/s':>8} {'fetch/s':>8}"]
    for name, values in figures.items():
        costs = [f"{statistics.median(values[k]):.3f} ({min(values[k]):.3f}-{max(values[k]):.3f})" for k in KINDS]
        rates = [f"{statistics.median(values[f'{k}/s']):.0f}" for k in KINDS]
        lines.append(f"{name:<10} {costs[0]:>22} {costs[1]:>22} {rates[0]:>8} {rates[1]:>8}")
    if "dovecot" in figures:
        ratios = [statistics.median(figures["mailroot"][k]) / statistics.median(figures["dovecot"][k]) for k in KINDS]
        lines.append(f"{'ratio':<10} {ratios[0]:>22.2f} {ratios[1]:>22.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=3000, help="sessions a round (3000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--only", choices=("sessions", "idle", "large", "delivery"), help="measure one part only")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="mailroot-bench-"))
    directory.chmod(0o755)
    servers: list[Mailroot | Dovecot] = []
    found: dict[str, object] = {}

    def wanted(part: str) -> bool:
        return options.only in (None, part)

    try:
        (directory / "mailroot").mkdir()
        mailroot = Mailroot(directory / "mailroot")
        servers.append(mailroot)
        for number in range(MAILBOXES):
            mailroot.fill(f"u{number}", MESSAGES)
        if wanted("sessions"):
            if dovecot_is_installed():
                (directory / "dovecot").mkdir()
                servers.append(Dovecot(directory / "dovecot", MAILBOXES, MESSAGES))
            else:
                print("Dovecot is not installed, so there is no ratio: apt-get install dovecot-pop3d", file=sys.stderr)
            found["sessions"] = measure(servers, options.sessions, options.rounds)
        if wanted("idle"):
            found["idle_octets_per_session"] = idle_octets(mailroot)
        if wanted("large"):
            found["large_login_to_stat_ms"] = large_milliseconds(mailroot)
        if wanted("delivery"):
            found["lmtp_delivery_cpu_ms"] = delivery_milliseconds(mailroot)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(table(value) if isinstance(value, dict) else f"{name}: {value:.1f}")


if __name__ == "__main__":
    main()
