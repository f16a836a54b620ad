"""
The picture of a scenario: what the load did in each second, and when the fault was there, as SVG inside a page.

Guarantees  the same outcome gives the same bytes; no reference to anything outside; identifiers that two pictures of one
            page do not share; text stays text; every colour is a CSS variable of the page with a value of its own.
Knows       matplotlib, whose import takes a second: only `page.py` imports this file, and only when it writes.
"""

import html
import io
import re
from collections.abc import Sequence

import matplotlib as mpl
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from node.drill.outcome import Outcome, Second

WIDTH_PX, HEIGHT_PX = 900, 270
POINTS_PER_INCH = 72  # At 72 dots per inch one unit of the picture is one pixel of a page that shows it in full size.
SECONDS_SHOWN_MAX = 900  # A pixel each; a scenario takes a minute or two. What comes after is not drawn.
LABEL_ROOM = 0.16  # The share of the width that the label beside a line needs.
QUIET_ERRORS = 4  # The lower half shows at least this many in a second, so that one error looks like one.
INK, MUTED, GRID, PAPER, FAULT = "#22303a", "#5d6b75", "#d9dfe3", "#fffffe", "#f3d9d3"


@frozen(kw_only=True)
class Series:
    """One thing that is counted each second; ``hatch`` tells it from its neighbours without colour."""

    field: str
    label: str
    color: str
    hatch: str = ""

    def of(self, seconds: Sequence[Second]) -> list[int]:
        """Return its count in each second."""
        return [int(getattr(second, self.field)) for second in seconds]


# Colours of Okabe and Ito, who chose them for eyes of every kind.
WORK = (
    Series(field="ok", label="sessions ok", color="#0072b2"),
    Series(field="accepted", label="deliveries accepted", color="#56b4e9", hatch="////"),
)
ERRORS = (
    Series(field="refused", label="sessions refused", color="#e69f00", hatch="\\\\\\\\"),
    Series(field="broken", label="sessions broken", color="#c8371b"),
    Series(field="deferred", label="deliveries deferred", color="#b5668f", hatch="||||"),
)
# The page may give each of these another value, for a dark screen; without a page the value here counts.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", FAULT: "fault"} | {
    series.color: series.field for series in WORK + ERRORS
}


def draw(outcome: Outcome, name: str) -> str:
    """Return the picture of an outcome as an <svg> element; ``name`` is its own within the page."""
    seconds = _every_second(outcome)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "hatch.linewidth": 1.2, "font.size": 11}):
        figure = Figure(figsize=(WIDTH_PX / POINTS_PER_INCH, HEIGHT_PX / POINTS_PER_INCH), dpi=POINTS_PER_INCH)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        work = figure.add_axes((0.06, 0.43, 0.93, 0.44))
        errors = figure.add_axes((0.06, 0.15, 0.93, 0.22), sharex=work)
        most = _stack(work, WORK, seconds)
        work.set_ylim(0, max(most, 1) * 1.3)  # The words "fault" and "mended" stand above the highest second.
        worst = _stack(errors, ERRORS, seconds)
        errors.set_ylim(max(worst, QUIET_ERRORS) * 1.1, 0)  # Downwards: errors pull, work pushes.
        if worst == 0:
            errors.text(0.5, 0.5, "no errors", transform=errors.transAxes, ha="center", va="center", color=MUTED)
        _mark_fault(work, errors, outcome, len(seconds))
        _dress(work, "work / s")
        _dress(errors, "errors / s")
        work.tick_params(labelbottom=False)
        errors.set_xlim(0, len(seconds))
        errors.set_xlabel("seconds since the scenario began", color=MUTED, fontsize=10, labelpad=1)
        figure.legend(
            handles=[_swatch(series) for series in WORK + ERRORS], loc="upper left", bbox_to_anchor=(0.052, 1.015),
            ncols=len(WORK + ERRORS), frameon=False, labelcolor=INK, handlelength=1.4, columnspacing=1.8, borderpad=0.2,
        )  # fmt: skip
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # No day, no program: the same bytes each time.
        figure.savefig(file, format="svg", metadata=nothing)
    return _inline(file.getvalue(), outcome, prefix=f"{name}-")


def _every_second(outcome: Outcome) -> list[Second]:
    """Fill the gaps of a time line: a second in which nothing happened is there, and empty."""
    known = {second.at: second for second in outcome.timeline if 0 <= second.at < SECONDS_SHOWN_MAX}
    until = min(max([*known, int(outcome.seconds), 0]) + 1, SECONDS_SHOWN_MAX)
    empty = Second(at=0, ok=0, refused=0, broken=0, accepted=0, deferred=0)
    return [known.get(at, empty) for at in range(until)]


def _stack(axes: Axes, stack: Sequence[Series], seconds: Sequence[Second]) -> int:
    """Draw series upon one another; return the greatest sum."""
    edges = range(len(seconds) + 1)
    floor = [0] * len(seconds)
    for series in stack:
        top = [below + count for below, count in zip(floor, series.of(seconds), strict=True)]
        axes.stairs(
            top, edges, baseline=floor, fill=True, facecolor=series.color, edgecolor=PAPER, linewidth=0,
            hatch=series.hatch or None, zorder=2,
        )  # fmt: skip
        floor = top
    return max(floor)


def _mark_fault(work: Axes, errors: Axes, outcome: Outcome, width: int) -> None:
    """Shade the time of the fault, and say at its borders when it began and when it was mended."""
    start, end = outcome.fault_from, outcome.fault_to
    for axes in (work, errors):
        if end > start:
            axes.axvspan(start, end, facecolor=FAULT, linewidth=0, zorder=0)
            axes.axvline(end, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=3)
        axes.axvline(start, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=3)
    room = width * LABEL_ROOM
    _label(work, start, f"fault {start:.1f} s", leftward=start >= room)
    if end > start:
        _label(work, end, f"mended {end:.1f} s", leftward=end > width - room, lower=start < room and end - start < room)


def _label(axes: Axes, at: float, text: str, *, leftward: bool, lower: bool = False) -> None:
    axes.annotate(
        text, (at, 0.80 if lower else 0.97), xycoords=axes.get_xaxis_transform(), xytext=(-4 if leftward else 4, 0),
        textcoords="offset points", ha="right" if leftward else "left", va="top", color=INK, zorder=4, fontweight="bold",
    )  # fmt: skip


def _dress(axes: Axes, label: str) -> None:
    axes.patch.set_visible(False)
    axes.set_ylabel(label, color=MUTED, fontsize=10, labelpad=3)
    axes.yaxis.set_label_coords(-0.042, 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=2, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=15, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GRID, linewidth=1, zorder=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=10)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.axhline(0, color=INK, linewidth=1, zorder=3)


def _swatch(series: Series) -> Patch:
    return Patch(facecolor=series.color, edgecolor=PAPER, linewidth=0, hatch=series.hatch or None, label=series.label)


def _inline(document: str, outcome: Outcome, *, prefix: str) -> str:
    """
    Make a stand-alone document an element of a page.

    matplotlib counts its identifiers from 1 in each picture: those that nothing refers to go, the others get a prefix.
    """
    body = re.sub(r"\A.*?<svg[^>]*>|</svg>\s*\Z", "", document, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # It would speak for the whole page.
    body = re.sub(r"<g/>|(?<=>)\s+(?=<)", "", body)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", body)
    for color, name in VARIABLES.items():
        body = body.replace(color, f"var(--{name}, {color})")
    body = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "var(--sans, sans-serif)", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="picture" role="img"'
        f' viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" stroke-linejoin="round"'
        f' aria-labelledby="{prefix}title {prefix}desc">\n'
        f'<title id="{prefix}title">{html.escape(outcome.scenario)}, second by second</title>\n'
        f'<desc id="{prefix}desc">{html.escape(_in_words(outcome))}</desc>\n{body}</svg>'
    )


def _in_words(outcome: Outcome) -> str:
    """Say what the picture shows to somebody who cannot see it."""
    until = f" to second {outcome.fault_to:.1f}" if outcome.fault_to > outcome.fault_from else ""
    return (
        f"Above the line, sessions and deliveries that went well; below it, errors. The fault is there from second"
        f" {outcome.fault_from:.1f}{until}. In all: {outcome.sessions_ok} sessions ok, {outcome.sessions_refused} refused,"
        f" {outcome.sessions_broken} broken; {outcome.accepted} deliveries accepted,"
        f" {sum(second.deferred for second in outcome.timeline)} deferred."
    )
