"""
What a drill shows while it runs: a live display on a terminal, one line for each event elsewhere.

Guarantees  everything goes to one stream (standard error), so that JSON on standard output stays clean; a finished
            scenario's line stays; a display that ends in any way, Ctrl-C too, gives the terminal back as it was.
Knows       rich. Of a drill it hears only what `Display` says.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from node.drill.outcome import Outcome
from node.drill.place import Display
from node.drill.table import line, plain

REFRESH_PER_SECOND = 8  # A spinner that turns smoothly; what it costs the two cores of a lab cannot be measured.
BAR_WIDTH = 30


@contextlib.contextmanager
def shown(
    scenarios: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Display]:
    """Show a drill of so many scenarios, as well as the stream allows."""
    console = Console(file=stream or sys.stderr, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(console=console, scenarios=scenarios, clock=clock)
        return
    display = Screen(console=console, scenarios=scenarios, clock=clock)
    # Standard output is not redirected: rich would send what is printed there, the JSON, to this console.
    with Live(
        get_renderable=display.view, console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True,
        redirect_stdout=False,
    ):  # fmt: skip
        yield display


@define(eq=False, kw_only=True)
class Lines:
    """One line for each event: for logs and pipes."""

    console: Console
    scenarios: int
    clock: Callable[[], float]
    _begun: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)

    def begin(self, scenario: str, sentence: str, steps: int) -> None:  # noqa: ARG002 (one line a step tells as much)
        """A scenario begins."""
        self._begun += 1
        self._began = self.clock()
        self._say(f"{scenario} ({self._begun} of {self.scenarios}): {sentence}")

    def step(self, text: str) -> None:
        """Its next step begins."""
        self._say(f"  {self.clock() - self._began:6.1f} s  {text}")

    def tick(self, ok: int, refused: int, broken: int, accepted: int) -> None:
        """The load has come so far: no line, there would be too many."""

    def end(self, outcome: Outcome) -> None:
        """The scenario is over."""
        self._say(line(outcome).plain)

    def _say(self, text: str) -> None:
        self.console.print(Text(plain(text)), soft_wrap=True)


@define(eq=False, kw_only=True)
class Screen:
    """The live display: finished scenarios above, the running one and the way through all of them below."""

    console: Console
    scenarios: int
    clock: Callable[[], float]
    _scenario: str = field(default="", init=False)
    _step: str = field(default="", init=False)
    _steps: tuple[int, int] = field(default=(0, 0), init=False)  # The present one, and how many there are.
    _counts: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), init=False)
    _done: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _started: float = field(default=0.0, init=False)
    _spinner: Spinner = field(factory=lambda: Spinner("dots", style="cyan"), init=False)

    def __attrs_post_init__(self) -> None:
        self._started = self._began = self.clock()

    def begin(self, scenario: str, sentence: str, steps: int) -> None:
        """A scenario begins."""
        self._step, self._steps = sentence, (0, steps)
        self._counts, self._began = (0, 0, 0, 0), self.clock()
        self._scenario = scenario

    def step(self, text: str) -> None:
        """Its next step begins."""
        self._step, self._steps = text, (self._steps[0] + 1, self._steps[1])

    def tick(self, ok: int, refused: int, broken: int, accepted: int) -> None:
        """The load has come so far, counted since the scenario began."""
        self._counts = (ok, refused, broken, accepted)

    def end(self, outcome: Outcome) -> None:
        """The scenario is over: its line goes above the live part, and stays."""
        self._scenario = ""
        self._done += 1
        self.console.print(line(outcome), soft_wrap=True)

    def view(self) -> RenderableType:
        """Return the live part as it is now; rich asks for it at each refresh, from a thread of its own."""
        share = self._steps[0] / (self._steps[1] + 1) if self._scenario else 0.0
        done = min(self._done + min(share, 1.0), self.scenarios)
        way = Table.grid(padding=(0, 2))
        way.add_row(
            ProgressBar(total=max(self.scenarios, 1), completed=done, width=BAR_WIDTH, complete_style="cyan"),
            Text(f"{self._done} of {self.scenarios} scenarios, {_minutes(self.clock() - self._started)}", "dim"),
        )
        return Group(*self._running(), way) if self._scenario else way

    def _running(self) -> tuple[RenderableType, ...]:
        """Two lines, so that nothing jumps while numbers grow: what is being done, and what the load does meanwhile."""
        row = Table.grid(padding=(0, 1))
        row.add_column(width=1)
        row.add_column(no_wrap=True, overflow="ellipsis")
        seconds = self.clock() - self._began
        row.add_row(
            self._spinner,
            Text.assemble((plain(self._scenario), "bold"), (f"  {seconds:5.1f} s  ", "dim"), plain(self._step)),
        )
        ok, refused, broken, accepted = self._counts
        counts = Text.assemble(
            f"  sessions {ok:,} ok, ", (f"{refused:,} refused", "yellow" if refused else ""), ", ",
            (f"{broken:,} broken", "red" if broken else ""), f"; {accepted:,} deliveries accepted",
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
        return row, counts


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
