"""
The parts of the benchmark. Each takes the servers in turns and returns figures; none prints.

Knows       what is measured and how often. Nothing of how it is shown.
"""

import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import load
from peers import LMTP_CLIENTS, PASSWORD, Dovecot, Mailboxes, Mailroot

MESSAGE_OCTETS = 10 * 1024
SETTLE_SECONDS = 0.3  # What a server still does for a session that its client has seen end.
DELIVERIES_PER_SESSION = 20
BIG_LOOKS = 9
LEDGER = "Valkey"
GENERATOR = "load generator"

Server = Mailroot | Dovecot
Say = Callable[[str], None]


class Figure(NamedTuple):
    """One figure of several servers, measured several times in alternation."""

    name: str
    unit: str
    values: dict[str, list[float]]

    def told(self) -> dict[str, object]:
        """Return the figure for a script."""
        told: dict[str, object] = {"unit": self.unit}
        for server, values in self.values.items():
            told[server] = {"median": median(values), "min": min(values), "max": max(values), "values": values}
        ratio = self.ratio()
        return told | ({"ratio": dict(zip(("of_medians", "min", "max"), ratio, strict=True))} if ratio else {})

    def ratio(self) -> tuple[float, float, float] | None:
        """Return Mailroot's share of Dovecot's: that of the medians, and the least and greatest of one round."""
        ours, theirs = self.values.get(Mailroot.name), self.values.get(Dovecot.name)
        if not ours or not theirs or self.name.endswith(GENERATOR):
            return None
        rounds = [a / b for a, b in zip(ours, theirs, strict=False)]
        return median(ours) / median(theirs), min(rounds), max(rounds)


class Options(NamedTuple):
    """How much is measured."""

    rounds: int
    sessions: int
    clients: int
    idle: int
    idle_dovecot: int
    deliveries: int


def _measured(server: Server, job: load.Job) -> tuple[float, load.Outcome]:
    before = server.cpu_seconds()
    outcome = load.run(job)
    time.sleep(SETTLE_SECONDS)
    return server.cpu_seconds() - before, outcome


def sessions(servers: list[Server], boxes: Mailboxes, options: Options, say: Say) -> list[Figure]:
    """Measure check and fetch: processor time of a session, and sessions a second."""
    figures = {}
    for kind in ("check", "fetch"):
        figures[kind] = Figure(f"{kind}, server", "CPU-ms/session", {server.name: [] for server in servers})
        figures[kind, "ledger"] = Figure(f"{kind}, ledger beside it", "CPU-ms/session", {LEDGER: []})
        figures[kind, "client"] = Figure(f"{kind}, {GENERATOR}", "CPU-ms/session", {s.name: [] for s in servers})
        figures[kind, "rate"] = Figure(f"{kind}, rate", "sessions/s", {server.name: [] for server in servers})
    for server in servers:
        say(f"warming up {server.name}: every mailbox three times, so its passwords are remembered")
        for kind in ("check", "fetch", "check"):
            load.run(boxes.job(kind, server.pop3_port, max(boxes.count, 2 * options.clients), options.clients))
    for number in range(1, options.rounds + 1):
        for kind, count in (("check", options.sessions), ("fetch", options.sessions // 2)):
            for server in servers:
                is_ours = isinstance(server, Mailroot)
                ledger = server.ledger_cpu_seconds() if is_ours else 0.0
                cpu, outcome = _measured(server, boxes.job(kind, server.pop3_port, count, options.clients))
                if is_ours:
                    spent = server.ledger_cpu_seconds() - ledger
                    figures[kind, "ledger"].values[LEDGER].append(1000 * spent / count)
                figures[kind].values[server.name].append(1000 * cpu / count)
                figures[kind, "client"].values[server.name].append(1000 * outcome.client_cpu_seconds / count)
                figures[kind, "rate"].values[server.name].append(count / outcome.seconds)
                say(f"round {number}/{options.rounds} {kind} {server.name}: {1000 * cpu / count:.3f} CPU-ms/session")
    return list(figures.values())


def idle(servers: list[Server], boxes: Mailboxes, options: Options, say: Say) -> Figure:
    """Measure what a session that is logged in and does nothing adds to the server's memory."""
    figure = Figure("idle logged-in session", "KiB", {})
    for server in servers:
        wanted = options.idle if isinstance(server, Mailroot) else options.idle_dovecot
        count = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500)
        some = boxes._replace(count=count)
        load.run(some.job("check", server.pop3_port, count, 4))
        time.sleep(SETTLE_SECONDS)
        before = server.memory_kib()
        with load.holding(some.job("hold", server.pop3_port, count, 16)):
            time.sleep(SETTLE_SECONDS)
            grown = server.memory_kib() - before
        figure.values[server.name] = [grown / count]
        say(f"idle {server.name}: {count} sessions added {grown} KiB")
    return figure


def big(servers: list[Server], boxes: Mailboxes, say: Say) -> Figure:
    """Measure the time from PASS to the reply of STAT at a large mailbox."""
    figure = Figure(f"{boxes.messages} messages, PASS to STAT", "ms", {server.name: [] for server in servers})
    for number in range(BIG_LOOKS + 2):
        for server in servers:
            took = _look(server.pop3_port, boxes)
            if number >= 2:
                figure.values[server.name].append(1000 * took)
    say(f"{boxes.messages} messages: looked {BIG_LOOKS} times at each server")
    return figure


def _look(port: int, boxes: Mailboxes) -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, connection.makefile("rb") as replies:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(command: str) -> bytes:
            if command:
                connection.sendall(f"{command}\r\n".encode())
            reply = replies.readline()
            if not reply.startswith(b"+OK"):
                raise RuntimeError(f"{command.partition(' ')[0]} was answered {reply!r}")
            return reply

        ask("")
        ask(f"USER {boxes.users[0]}")
        began = time.perf_counter()
        ask(f"PASS {PASSWORD}")
        reply = ask("STAT")
        took = time.perf_counter() - began
        ask("QUIT")
        replies.read()
    if int(reply.split()[1]) != boxes.messages:
        raise RuntimeError(f"STAT was answered {reply!r}")
    return took


def deliveries(servers: list[Server], boxes: Mailboxes, options: Options, say: Say) -> Figure:
    """Measure the processor time of a delivery by LMTP that is durable when it is acknowledged."""
    able = [server for server in servers if server.lmtp_port]
    figure = Figure("LMTP delivery, server", "CPU-ms/delivery", {server.name: [] for server in able})

    def job(server: Server, count: int) -> load.Job:
        some = boxes._replace(messages=DELIVERIES_PER_SESSION)
        return some.job("lmtp", server.lmtp_port, count, LMTP_CLIENTS)

    for server in able:
        load.run(job(server, LMTP_CLIENTS))
    count = max(options.deliveries // DELIVERIES_PER_SESSION, 1)
    for number in range(1, 4):
        for server in able:
            cpu, _ = _measured(server, job(server, count))
            figure.values[server.name].append(1000 * cpu / (count * DELIVERIES_PER_SESSION))
            say(f"round {number}/3 LMTP {server.name}: {figure.values[server.name][-1]:.3f} CPU-ms/delivery")
    return figure


def machine() -> dict[str, object]:
    """Return what the figures depend on besides the servers."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpus": os.cpu_count(),
        "model": model.partition(": ")[2],
        "kernel": os.uname().release,
    }
