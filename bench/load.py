"""
The load generator: many conversations from one thread on epoll, in a process of its own.

Guarantees  every command waits for its reply (no pipelining), every reply is checked, and a session is over when the
            server has closed. What cannot be right (an -ERR, a wrong number of messages) ends the run.
Knows       how replies end in POP3 and LMTP. Nothing of the servers: it is told a port and what to do there.

Run by session_cost.py as ``python load.py`` with a Job as JSON on standard input; the outcome is JSON on standard output.
"""

import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

LINE, DOTS, CODES = range(3)  # How a reply ends: at a line, at a line with a dot, at a line "250 ...".
RECEIVE_OCTETS = 262_144
STALL_SECONDS = 60.0


class Step(NamedTuple):
    """One command, and what its reply must look like."""

    send: bytes
    ending: int
    begins: bytes
    octets_min: int = 0


class Job(NamedTuple):
    """
    What to do at a port. ``kind``: "check", "fetch", "hold" (log in and stay), "lmtp".

    ``users`` are taken in turn. ``messages`` and ``octets`` say what each mailbox must have; for "lmtp", how many
    messages each session delivers, and of what size.
    """

    kind: str
    port: int
    users: list[str]
    password: str
    messages: int
    octets: int
    sessions: int
    clients: int


def pop3_steps(job: Job, user: str) -> list[Step]:
    """Return a POP3 session; the first step is the greeting."""
    begun = [
        Step(b"", LINE, b"+OK"),
        Step(b"USER %s\r\n" % user.encode(), LINE, b"+OK"),
        Step(b"PASS %s\r\n" % job.password.encode(), LINE, b"+OK"),
        Step(b"STAT\r\n", LINE, b"+OK %d %d" % (job.messages, job.messages * job.octets)),
    ]
    if job.kind == "hold":
        return begun
    looked = [
        Step(b"UIDL\r\n", DOTS, b"+OK", job.messages * 10),
        Step(b"LIST\r\n", DOTS, b"+OK", job.messages * 5),
    ]
    numbers = range(1, 4) if job.kind == "fetch" else range(0)
    fetched = [Step(b"RETR %d\r\n" % number, DOTS, b"+OK", job.octets) for number in numbers]
    return [*begun, *looked, *fetched, Step(b"QUIT\r\n", LINE, b"+OK")]


def lmtp_steps(job: Job, user: str) -> list[Step]:
    """Return an LMTP session with several deliveries."""
    content = message(job.octets)
    delivery = [
        Step(b"MAIL FROM:<bench@example.net>\r\n", LINE, b"250"),
        Step(b"RCPT TO:<%s>\r\n" % user.encode(), LINE, b"250"),
        Step(b"DATA\r\n", LINE, b"354"),
        Step(content + b".\r\n", LINE, b"250"),
    ]
    begun = [Step(b"", LINE, b"220"), Step(b"LHLO bench\r\n", CODES, b"250")]
    return begun + delivery * job.messages + [Step(b"QUIT\r\n", LINE, b"221")]


def message(octets: int) -> bytes:
    """Return a message of exactly this size, CRLF, no line of which begins with a dot."""
    header = b"From: bench@example.net\r\nTo: everyone@bench.example\r\nSubject: benchmark\r\n\r\n"
    line = b"The quick brown fox jumps over the lazy dog, and over and over again it jumps.\r\n"
    body = octets - len(header) - 2
    return header + (line * (body // len(line) + 1))[:body].rstrip(b"\r\n").ljust(body, b".") + b"\r\n"


class Conversation:
    """One connection on its way through its steps."""

    def __init__(self, port: int, steps: list[Step]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._steps = iter(steps)
        self._step = next(self._steps)
        self._reply = b""
        self.is_held = False

    def advance(self, *, hold: bool) -> bool:
        """Read what is there and send the next command; return whether the conversation is over."""
        data = self.socket.recv(RECEIVE_OCTETS)
        step = self._step
        if not data:
            if step is not None:
                raise SystemExit(f"load: the server closed at {step.send[:40]!r}, after {self._reply[:200]!r}")
            return True
        if step is None:
            raise SystemExit(f"load: {data[:200]!r} after the last reply")
        if self._reply:
            data = self._reply + data
        if not _is_complete(data, step.ending):
            self._reply = data
            return False
        if not data.startswith(step.begins) or len(data) < step.octets_min:
            raise SystemExit(f"load: {step.send[:40]!r} was answered {data[:200]!r}; expected {step.begins!r}")
        self._reply = b""
        self._step = step = next(self._steps, None)
        if step is None:
            self.is_held = hold
            return hold
        if self.socket.send(step.send) != len(step.send):
            raise SystemExit("load: the socket's buffer is full")
        return False


def _is_complete(data: bytes, ending: int) -> bool:
    if ending == DOTS:
        return data.endswith(b"\r\n.\r\n") or (data.startswith(b"-") and data.endswith(b"\r\n"))
    if not data.endswith(b"\r\n"):
        return False
    return ending == LINE or data[data.rfind(b"\r\n", 0, -2) + 2 :][3:4] == b" "


def perform(job: Job) -> list[Conversation]:
    """Hold all conversations, at most ``clients`` at a time; return those that stay open (kind "hold")."""
    make = lmtp_steps if job.kind == "lmtp" else pop3_steps
    scripts = [make(job, user) for user in job.users]
    waiting = iter(scripts[number % len(scripts)] for number in range(job.sessions))
    poll = select.epoll()
    talking: dict[int, Conversation] = {}
    held = []
    hold = job.kind == "hold"

    def begin(steps: list[Step]) -> None:
        conversation = Conversation(job.port, steps)
        talking[conversation.socket.fileno()] = conversation
        poll.register(conversation.socket, select.EPOLLIN)

    for steps in islice(waiting, job.clients):
        begin(steps)
    while talking:
        events = poll.poll(STALL_SECONDS)
        if not events:
            raise SystemExit(f"load: nothing moved for {STALL_SECONDS:.0f} s; {len(talking)} sessions are open")
        for descriptor, _ in events:
            conversation = talking[descriptor]
            if not conversation.advance(hold=hold):
                continue
            del talking[descriptor]
            poll.unregister(descriptor)
            if conversation.is_held:
                held.append(conversation)
            else:
                conversation.socket.close()
            steps = next(waiting, None)
            if steps is not None:
                begin(steps)
    return held


class Outcome(NamedTuple):
    """What a run took: seconds by the clock, and the load generator's own processor time."""

    seconds: float
    client_cpu_seconds: float


def run(job: Job) -> Outcome:
    """Do a job in a process of its own and wait for it. :raises RuntimeError: with its last words."""
    with holding(job) as outcome:
        return outcome


@contextmanager
def holding(job: Job) -> Iterator[Outcome]:
    """Do a job in a process of its own; sessions of kind "hold" stay open until the end of the block."""
    command = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            if not answer:
                raise RuntimeError(child.stderr.read().decode().strip() or "the load generator died")
            yield Outcome(*json.loads(answer))
            child.stdin.close()
            child.wait(STALL_SECONDS)
        finally:
            child.kill()


def main() -> None:
    """Do the job on standard input; end when standard input ends."""
    job = Job(*json.loads(sys.stdin.buffer.readline()))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began, cpu = time.monotonic(), time.process_time()
    held = perform(job)
    outcome = Outcome(time.monotonic() - began, time.process_time() - cpu)
    print(json.dumps(outcome), flush=True)
    sys.stdin.buffer.read()
    for conversation in held:
        conversation.socket.close()


if __name__ == "__main__":
    main()
