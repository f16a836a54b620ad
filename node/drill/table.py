"""
The table at the end of a drill: on a terminal, and as the Markdown that docs/FAILURES.md carries.

Guarantees  the table fits 100 columns; text of others (a server's words in a violation) is shown as it is, never as
            the terminal's own orders.
Knows       the values of `outcome.py`, and rich.
"""

import io
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.drill import figures
from node.drill.outcome import Outcome, Report

COLUMNS = 100
VIOLATIONS_SHOWN_MAX = 10  # Of each scenario, so that the verdict stays in sight.
KEPT, BROKEN = "✓", "✗"
MARK_WIDTH, SCENARIO_WIDTH = 1, 21  # The longest is cut-node-from-clients.
# What columns have in common, their titles and widths: with one space between them they fill the 100 columns.
GROUPS = (
    ("sessions", (("ok", 5), ("refused", 7), ("broken", 6))),
    ("seconds", (("un-\nreach-\nable", 6), ("take-\nover", 5))),
    ("messages", (("accepted", 8), ("readable", 8), ("lost", 4), ("twice", 5), ("not\nasked", 5))),
    ("", (("two\nholders", 7),)),
)
MARKDOWN_TITLES = (
    "scenario", "what is broken", "sessions ok / refused / broken", "unreachable, s", "take-over, s",
    "messages accepted / readable / removed", "lost", "twice", "not asked", "two holders", "promises",
)  # fmt: skip


def show(report: Report, stream: TextIO) -> None:
    """Print the table, what was broken, what was skipped, and the verdict on the last line."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # A terminal that knows no ✓ shows a question mark rather than nothing.
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    console.print()
    tried = list(figures.tried(report))
    if tried and console.width >= COLUMNS:
        console.print(_groups())
        console.print(_table(tried))
    elif tried:  # A narrow terminal would fold numbers, which then say something else: a line for each scenario.
        for outcome in tried:
            console.print(line(outcome), soft_wrap=True)
    for sentence in figures.broken_promises(report):
        console.print(Text(f"{BROKEN} {plain(sentence)}", "red"), soft_wrap=True)
    for outcome in tried:
        for sentence in figures.violations(outcome, VIOLATIONS_SHOWN_MAX):
            console.print(Text(f"{BROKEN} {plain(outcome.scenario)}: {plain(sentence)}", "red"), soft_wrap=True)
    for outcome in figures.skipped(report):
        console.print(Text(f"- {plain(outcome.scenario)} was skipped: {plain(outcome.skipped)}", "dim"), soft_wrap=True)
    found = figures.verdict(report)
    console.print()
    console.print(found.basis, style="dim")
    console.print(found.headline, style="bold green" if found.kept else "bold red" if found.tried else "bold yellow")


def line(outcome: Outcome) -> Text:
    """Return one outcome as one line: mark, name, key figures."""
    if outcome.skipped:
        return Text.assemble(
            ("- ", "dim"), f"{plain(outcome.scenario):<31}", (f"skipped: {plain(outcome.skipped)}", "dim")
        )
    mark = (f"{KEPT} ", "green") if outcome.kept else (f"{BROKEN} ", "bold red")
    return Text.assemble(
        mark, f"{plain(outcome.scenario):<22}", (f"{outcome.seconds:5.1f} s  ", "dim"), figures.key_figures(outcome)
    )


def plain(text: str) -> str:
    """Take out control characters: what a server said must not move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("", width=MARK_WIDTH)
    table.add_column("scenario", width=SCENARIO_WIDTH, no_wrap=True, vertical="bottom")
    for _, columns in GROUPS:
        for title, width in columns:
            table.add_column(title, width=width, justify="right", no_wrap=True, vertical="bottom")
    for outcome in outcomes:
        mark = Text(KEPT, "green") if outcome.kept else Text(BROKEN, "bold red")
        table.add_row(mark, Text(plain(outcome.scenario)), *_cells(outcome))
    return table


def _groups() -> Text:
    """Return the line above the table: what its neighbouring columns have in common."""
    spaces = " " * (MARK_WIDTH + 1 + SCENARIO_WIDTH)
    for title, columns in GROUPS:
        width = sum(width for _, width in columns) + len(columns) - 1
        spaces += " " + (f" {title} ".center(width, "╌") if title else " " * width)
    return Text(spaces.rstrip(), "dim")


def _cells(outcome: Outcome) -> list[Text]:
    """Return the figures in the order of GROUPS; those that are promised to be 0 stand out where they are not."""
    never = (outcome.lost, outcome.not_asked, outcome.two_holders)
    lost, not_asked, two_holders = (Text(_short(number, 4), "bold red" if number else "") for number in never)
    return [
        Text(_short(outcome.sessions_ok, 5)),
        Text(_short(outcome.sessions_refused, 7)),
        Text(_short(outcome.sessions_broken, 6)),
        Text(figures.seconds(outcome.unreachable_seconds)),
        Text(figures.takeover(outcome)),
        Text(_short(outcome.accepted, 8)),
        Text(_short(outcome.readable, 8)),
        lost,
        Text(_short(outcome.twice, 5)),
        not_asked,
        two_holders,
    ]


def _short(number: int, width: int) -> str:
    """Return a number that fits, in thousands where it must: a cut one would be another number."""
    return str(number) if len(str(number)) <= width else f"{number // 1000}k"


def markdown(report: Report) -> str:
    """Return the report as a Markdown table with the command that makes it again."""
    lines = [f"| {' | '.join(MARKDOWN_TITLES)} |", "|---" * len(MARKDOWN_TITLES) + "|"]
    for outcome in figures.tried(report):
        kept = sum(promise.kept for promise in outcome.promises)
        cells = [
            f"`{outcome.scenario}`",
            outcome.broken,
            f"{outcome.sessions_ok:,} / {outcome.sessions_refused:,} / {outcome.sessions_broken:,}",
            figures.seconds(outcome.unreachable_seconds),
            figures.takeover(outcome),
            f"{outcome.accepted:,} / {outcome.readable:,} / {outcome.removed:,}",
            *(f"{number:,}" for number in (outcome.lost, outcome.twice, outcome.not_asked, outcome.two_holders)),
            f"{kept} of {len(outcome.promises)} kept",
        ]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines += ["", f"Made by `{report.command}` ({_circumstances(report)})."]
    lines += [f"`{outcome.scenario}` was skipped: {_cell(outcome.skipped)}." for outcome in figures.skipped(report)]
    return "\n".join(lines) + "\n"


def _circumstances(report: Report) -> str:
    parts = (f"Mailroot {report.version}", figures.place(report), report.machine, figures.when(report.began))
    return ", ".join(map(_cell, parts))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
