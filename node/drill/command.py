"""
``mailroot drill``: run scenarios, show how they go, and say what the promises were worth.

Exit codes  0 every promise was kept; 1 one was broken, or the drill could not be run; 2 not understood.
Guarantees  whatever ends it, Ctrl-C too, nothing that it started is left running.
Knows       the kinds of places, and who shows a report.
"""

import argparse
import contextlib
import difflib
import importlib.metadata
import os
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from node.drill.outcome import Outcome, Promise, Report
from node.drill.place import Display, Place, Unready
from node.drill.run import STEADY_SECONDS, run
from node.drill.scenarios import BY_NAME, SCENARIOS, Scenario
from store.errors import Refused

EXIT_BROKEN = 1
STEADY_SECONDS_MAX = 600.0
DESCRIPTION = "Run load on a cluster of its own, break one thing at a time, and prove what the promises are worth."
VICTIM = "a node"  # What {victim} is in a list, before there is one.

MakePlace = Callable[[bool], Place]  # The argument: whether the ledger has sentinels.


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(_listed())
        return 0
    try:
        return _drill(options, arguments)
    except ImportError as error:
        print(f"mailroot: the drill needs {error.name}: pip install 'mailroot[lab]', or: make install", file=sys.stderr)
    except (Unready, Refused) as error:
        print(f"mailroot drill: {error}", file=sys.stderr)
    return EXIT_BROKEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailroot drill",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Scenarios:\n\n{_listed()}\n\n"
        "Examples:\n\n"
        "  mailroot drill                                   all of them, three nodes on this machine\n"
        "  mailroot drill kill-node stop-node               two of them\n"
        "  mailroot drill --on compose --page drill.html    on Docker Compose, with a page for a ticket\n\n"
        "Exits 0 if every promise was kept, 1 if one was broken.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", type=_scenario, help="what to break; all if none")
    parser.add_argument(
        "--on", choices=("lab", "compose"), default="lab", help="processes on this machine (lab), or Docker Compose"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=STEADY_SECONDS,
        metavar="N",
        help=f"how long the load runs before the fault and after it is mended ({STEADY_SECONDS:g})",
    )
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument(
        "--page", metavar="FILE.html", type=Path, help="write the report as one page, pictures included"
    )
    parser.add_argument("--list", action="store_true", help="tell the scenarios and end")
    return parser


def _scenario(name: str) -> Scenario:
    if name not in BY_NAME:
        close = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean {close[0]}?" if close else "mailroot drill --list tells them all"
        raise argparse.ArgumentTypeError(f"there is no scenario {name!r}; {hint}")
    return BY_NAME[name]


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= STEADY_SECONDS_MAX:
            return float(text)
    raise argparse.ArgumentTypeError(f"needs a number of seconds from 0 to {STEADY_SECONDS_MAX:g}")


def _listed() -> str:
    width = max(map(len, BY_NAME))
    sentences = ((each.name, each.sentence.format(victim=VICTIM)) for each in SCENARIOS)
    return "\n".join(f"  {name:<{width}}  {sentence[0].upper()}{sentence[1:]}" for name, sentence in sentences)


def _drill(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from node.drill import page, progress, table  # noqa: PLC0415 (they need the extra `lab`)

    make_place = _kind(options.on)
    if options.page is not None:
        page.check(options.page)
    _check_json(options.json)
    scenarios = tuple(dict.fromkeys(options.scenarios)) or SCENARIOS
    began = datetime.now(UTC).isoformat(timespec="seconds")
    with _interruptible(), progress.shown(len(scenarios)) as display:
        nodes, outcomes = drill(scenarios, make_place, display, steady_seconds=options.seconds)
    report = Report(
        place=options.on,
        nodes=nodes,
        command=shlex.join(["mailroot", "drill", *arguments]),
        version=_version(),
        machine=_machine(),
        began=began,
        outcomes=outcomes,
    )
    if options.json == "-":
        print(report.as_json())
    elif options.json is not None:
        Path(options.json).write_text(report.as_json() + "\n", encoding="utf-8")
    table.show(report, sys.stderr if options.json == "-" else sys.stdout)
    if options.page is not None:
        page.write(report, options.page)
        print(f"The page is in {options.page}.", file=sys.stderr)
    return 0 if report.kept else EXIT_BROKEN


def _kind(on: str) -> MakePlace:
    if on == "compose":
        from node.drill.on_compose import OnCompose  # noqa: PLC0415

        return lambda sentinel: OnCompose(sentinel=sentinel)
    from node.drill.on_lab import OnLab  # noqa: PLC0415 (needs the extra `lab`)

    return lambda sentinel: OnLab(sentinel=sentinel)


def _check_json(path: str | None) -> None:
    """Tell early that the JSON can't be written there, rather than after the drill. :raises Refused: with the reason."""
    if path in (None, "-"):
        return
    try:
        with Path(path or "").open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise Refused(f"the report {path} can't be written: {error.strerror}") from error


# The drill itself


def drill(
    scenarios: Sequence[Scenario], make_place: MakePlace, display: Display, *, steady_seconds: float
) -> tuple[int, tuple[Outcome, ...]]:
    """
    Run scenarios in their order; return how many nodes there were, and what each scenario came to.

    One place serves as many scenarios as it can: until one needs another ledger, or until one is not whole again.
    :raises Unready: a new place did not start.
    """
    nodes, outcomes = 0, list[Outcome]()
    waiting = list(scenarios)
    while waiting:
        sentinel = waiting[0].sentinel
        with _running(make_place(sentinel)) as place:
            nodes, is_whole = len(place.nodes), True
            while waiting and is_whole and waiting[0].sentinel == sentinel:
                outcomes.append(_run(waiting.pop(0), place, display, steady_seconds))
                is_whole = outcomes[-1].kept
    return nodes, tuple(outcomes)


def _run(scenario: Scenario, place: Place, display: Display, steady_seconds: float) -> Outcome:
    try:
        return run(scenario, place, display, steady_seconds=steady_seconds)
    except Unready as error:
        promise = Promise(text="the cluster is whole before anything is broken", kept=False, measured=str(error))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        outcome = Outcome(
            scenario=scenario.name,
            broken=scenario.sentence.format(victim=VICTIM),
            began=now,
            seconds=0.0,
            refusals={},
            promises=(promise,),
        )
        display.end(outcome)
        return outcome


@contextlib.contextmanager
def _running(place: Place) -> Iterator[Place]:
    try:
        place.start()
        yield place
    finally:
        # A second Ctrl-C of an impatient person must not leave processes behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        place.stop()
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the drill as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.", file=sys.stderr)
        raise
    finally:
        for number, was in before:
            signal.signal(number, was)


def _version() -> str:
    try:
        return importlib.metadata.version("mailroot")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"


def _machine() -> str:
    release = ".".join(platform.release().split(".")[:2])
    python = platform.python_version().rpartition(".")[0]
    return f"{os.cpu_count()} cores, {platform.system()} {release}, Python {python}"
