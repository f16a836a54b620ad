"""
What a session costs: Mailroot beside a tuned Dovecot, in one run on one machine. See README.md beside this file.
"""

import argparse
import contextlib
import json
import platform
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import FrameType

import parts
import usage
from parts import Figure, Options
from peers import INSTALL_DOVECOT, LMTP_CLIENTS, Dovecot, Mailboxes, Mailroot, dovecot_version

PARTS = ("sessions", "idle", "big", "lmtp")
SPARE_PROCESSES = 8  # Dovecot's POP3 processes beyond one for each client.
DESCRIPTION = """\
Measure what POP3 sessions cost Mailroot, and a tuned Dovecot beside it, alternating in one run.

  sessions   processor time of one session, and sessions a second, at 32 clients that wait for each reply:
               check   USER PASS STAT UIDL LIST QUIT, 20 messages of 10 KiB
               fetch   the same and three RETR before QUIT
  idle       memory that a logged-in, idle session adds
  big        a mailbox of 20,000 messages: from PASS to the reply of STAT
  lmtp       processor time of one durable delivery of 10 KiB
"""
EPILOG = """\
examples:
  bench/session_cost.py                             everything, some minutes
  bench/session_cost.py --only sessions --rounds 3  the two figures that matter most, about a minute
  bench/session_cost.py --json > before.json        for a comparison; progress goes to standard error

Run it on an idle machine, and trust the ratios more than the milliseconds. Nothing is left behind: all files lie
in one directory under the temporary directory (TMPDIR), and every process is ended.
"""
NOTES = """\
How to read it: median (least-most) of the rounds; the ratio is that of the medians (least-most of one round).
Passwords were remembered (Mailroot) and cached (Dovecot) before the measuring began: no password hash is in here.
Mailroot's processor time is its one node process, all threads; the ledger's is the line beside it. Dovecot's is its
whole process tree: master, log, config, anvil, stats, auth, pop3-login, pop3, lmtp, ended ones included."""


OTHERS_SHARE_MAX = 0.1
BUSY = """
BUSY MACHINE: do not quote these figures. Other programs slow Dovecot's many processes more than Mailroot's one, so
the ratio comes out too good (measured: 0.45 became 0.34 with two busy loops beside). Run it again on an idle machine.
"""


def main() -> int:
    """Run the command line."""
    options = _options()

    def say(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    version = None if options.no_dovecot else dovecot_version()
    if version is None and not options.no_dovecot:
        print(INSTALL_DOVECOT, file=sys.stderr)
    neighbours = usage.Neighbours()
    try:
        figures = _measure(options, neighbours, with_dovecot=version is not None, say=say)
    except KeyboardInterrupt:
        print("Interrupted; nothing is left running.", file=sys.stderr)
        return 130
    except (RuntimeError, OSError) as error:
        print(f"session_cost: {error}", file=sys.stderr)
        return 1
    facts = parts.machine() | {
        "others_share": neighbours.share,
        "python": platform.python_version(),
        "dovecot": version,
    }
    if options.json:
        print(json.dumps({"machine": facts, "figures": {f.name: f.told() for f in figures}}, indent=2))
    else:
        print(_table(figures, facts))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def number(name: str, default: int, text: str) -> None:
        parser.add_argument(name, type=_positive, default=default, metavar="N", help=f"{text} ({default})")

    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated (all)")
    parser.add_argument("--no-dovecot", action="store_true", help="measure Mailroot alone")
    parser.add_argument("--json", action="store_true", help="for scripts: all values of all rounds")
    number("--rounds", 5, "rounds of check and fetch, the servers in turns")
    number("--sessions", 4000, "sessions of one round of check; half as many of fetch")
    number("--clients", 32, "clients at once")
    number("--mailboxes", 200, "mailboxes")
    number("--messages", 20, "messages in each")
    number("--idle", 2000, "idle sessions at Mailroot, each on a mailbox of its own")
    number("--idle-dovecot", 200, "idle sessions at Dovecot: each is a process there")
    number("--big", 20_000, "messages of the large mailbox")
    number("--deliveries", 800, "deliveries of one round")
    options = parser.parse_args()
    if options.clients > options.mailboxes // 2:
        parser.error("--clients: at most half of --mailboxes, or sessions would meet at one mailbox's lock")
    if options.messages < 3:
        parser.error("--messages: at least 3, which fetch reads")
    options.only = options.only or list(PARTS)
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("needs a number above 0")
    return number


def _measure(
    options: argparse.Namespace, neighbours: usage.Neighbours, *, with_dovecot: bool, say: parts.Say
) -> list[Figure]:
    octets = parts.MESSAGE_OCTETS
    boxes = Mailboxes("box", options.mailboxes, options.messages, octets, share=False)
    idle = Mailboxes("idle", max(options.idle, options.idle_dovecot), options.messages, octets, share=True)
    big = Mailboxes("big", 1, options.big, octets, share=True)
    inbox = Mailboxes("in", LMTP_CLIENTS, 0, octets, share=False)
    how = Options(
        rounds=options.rounds,
        sessions=options.sessions,
        clients=options.clients,
        idle=options.idle,
        idle_dovecot=options.idle_dovecot,
        deliveries=options.deliveries,
    )
    figures: list[Figure] = []

    def start(sets: list[Mailboxes], spare: int, limit: int) -> contextlib.AbstractContextManager[list[parts.Server]]:
        return _servers(sets, spare, limit + SPARE_PROCESSES, with_dovecot=with_dovecot, say=say)

    sets = {"sessions": boxes, "big": big, "lmtp": inbox}
    wanted = [name for name in sets if name in options.only]
    if wanted:
        processes = options.clients
        with start([sets[name] for name in wanted], processes + SPARE_PROCESSES, processes) as servers:
            if "sessions" in wanted:
                with neighbours.watched():
                    figures += parts.sessions(servers, boxes, how, say)
            if "big" in wanted:
                with neighbours.watched():
                    figures.append(parts.big(servers, big, say))
            if "lmtp" in wanted:
                with neighbours.watched():
                    figures.append(parts.deliveries(servers, inbox, how, say))
    if "idle" in options.only:
        # Servers of their own: fresh memory, and as many Dovecot processes as sessions.
        with start([idle], 1, options.idle_dovecot) as servers:
            figures.append(parts.idle(servers, idle, how, say))
    return figures


@contextlib.contextmanager
def _servers(
    sets: list[Mailboxes], spare: int, limit: int, *, with_dovecot: bool, say: parts.Say
) -> Iterator[list[parts.Server]]:
    """Start the servers with these mailboxes; end them and remove everything."""
    with contextlib.ExitStack() as ends:
        directory = Path(tempfile.mkdtemp(prefix="mailroot-bench-"))
        ends.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o711)  # Dovecot's unprivileged processes must pass through.
        servers: list[parts.Server] = [Mailroot(directory / "mailroot")]
        if with_dovecot:
            servers.append(Dovecot(directory / "dovecot", spare=spare, limit=limit))
        for server in servers:
            say(f"starting {server.name} with {', '.join(f'{s.count} x {s.messages} messages' for s in sets)}")
            ends.callback(server.stop)
            server.start(sets)
        ends.enter_context(_uninterrupted())
        yield servers


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Begin the end: what comes after this block's end is not interrupted any more."""
    kept = {}
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            kept[number] = signal.signal(number, signal.SIG_IGN)


def _table(figures: list[Figure], facts: dict[str, object]) -> str:
    peer = f"Dovecot {facts['dovecot']}" if facts["dovecot"] else ""
    head = ("", "unit", "Mailroot", peer, "ratio" if peer else "")
    rows = [head]
    for figure in figures:
        ours = figure.values.get(Mailroot.name) or figure.values.get(parts.LEDGER)
        ratio = figure.ratio()
        rows.append(
            (
                figure.name,
                figure.unit,
                _spread(ours),
                _spread(figure.values.get(Dovecot.name)),
                f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})" if ratio else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    where = (
        f"{facts['cpus']} CPUs ({facts['model'] or 'model unknown'}), Linux {facts['kernel']}, Python {facts['python']}, "
        f"other programs used {facts['others_share']:.0%} of the processors meanwhile"
    )
    busy = BUSY if facts["others_share"] > OTHERS_SHARE_MAX else ""
    return "\n".join([where, busy, *lines, "", NOTES])


def _spread(values: list[float] | None) -> str:
    if not values:
        return ""
    digits = 0 if median(values) >= 100 else 2 if median(values) >= 3 else 3
    text = f"{median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
