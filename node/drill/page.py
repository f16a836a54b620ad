"""
The page of a drill: one HTML file that carries everything it shows, to be read, printed, or put into a ticket.

Guarantees  no script, and no reference to anything outside: its own policy forbids both; every text is escaped; a
            page is there whole or not at all.
Fails with  Refused: the page cannot be written there; the detail says what to do.
Knows       the template `page.html`. matplotlib is imported when the first page is made, which takes a second.
"""

import contextlib
import importlib.resources
import os
import re
from pathlib import Path

import jinja2
from attrs import frozen
from markupsafe import Markup

from node.drill import figures
from node.drill.outcome import Outcome, Report
from store.errors import Refused

VIOLATIONS_SHOWN_MAX = 100  # Of each scenario; the JSON has them all.


@frozen(kw_only=True)
class Section:
    """One tried scenario on the page: its outcome, its own name within the page, its picture."""

    outcome: Outcome
    anchor: str
    picture: Markup


def check(path: Path) -> None:
    """Tell early that a page can't be written there, rather than after the drill. :raises Refused: with the reason."""
    if path.is_dir():
        raise Refused(f"{path} is a directory; give the page a file name in it, such as {path / 'drill.html'}")
    if not path.parent.is_dir():
        raise Refused(f"the page {path.name} can't be written: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Refused(f"the page {path.name} can't be written: nothing can be made in {path.parent} by this user")


def write(report: Report, path: Path) -> None:
    """Write the page of a report. :raises Refused: with what to do."""
    check(path)
    text = render(report)
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise Refused(f"the page {path} can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # It has its name by now; if not, what is left of it goes.
            draft.unlink()


def render(report: Report) -> str:
    """Return the page of a report."""
    source = importlib.resources.files("node.drill").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"seconds": figures.seconds, "when": figures.when, "count": "{:,}".format}
    return environment.from_string(source).render(
        report=report,
        verdict=figures.verdict(report),
        broken=list(figures.broken_promises(report)),
        violations_max=VIOLATIONS_SHOWN_MAX,
        sections=_sections(report),
        skipped=list(figures.skipped(report)),
        words=figures.WORDS,
        figures=figures,
    )


def _sections(report: Report) -> list[Section]:
    from node.drill import picture  # noqa: PLC0415 (matplotlib takes a second; see Knows)

    sections: dict[str, Section] = {}
    for number, outcome in enumerate(figures.tried(report), 1):
        anchor = re.sub(r"[^a-z0-9-]+", "-", outcome.scenario.lower()).strip("-") or "scenario"
        if anchor in sections or anchor == "words":
            anchor = f"{anchor}-{number}"
        drawn = Markup(picture.draw(outcome, anchor))  # noqa: S704 (our own drawing, escaped where it carries text)
        sections[anchor] = Section(outcome=outcome, anchor=anchor, picture=drawn)
    return list(sections.values())
