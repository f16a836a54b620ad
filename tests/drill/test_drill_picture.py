"""The picture of a scenario: one element, well-formed, the same each time, readable without colours."""

import re
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve
from drill_reports import HOSTILE, outcome

from node.drill.outcome import Outcome
from node.drill.picture import ERRORS, VARIABLES, WORK, draw

SVG = "{http://www.w3.org/2000/svg}"


def words_of(picture: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text")]


def test_a_picture_is_one_well_formed_element():
    root = ET.fromstring(draw(outcome("kill-node"), "kill-node"))
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == "0 0 900 270"


def test_the_same_outcome_gives_the_same_bytes():
    assert draw(outcome("kill-node"), "kill-node") == draw(outcome("kill-node"), "kill-node")


def test_the_fault_is_marked_and_every_series_has_its_name():
    words = words_of(draw(outcome("kill-node"), "kill-node"))
    assert {"fault 8.3 s", "mended 15.2 s"} <= set(words)
    assert {series.label for series in WORK + ERRORS} <= set(words)


def test_a_fault_of_an_instant_has_no_end():
    words = words_of(draw(outcome("wipe-ledger", fault=(9.0, 9.0)), "wipe-ledger"))
    assert "fault 9.0 s" in words
    assert not [word for word in words if "mended" in word]


def test_somebody_who_cannot_see_it_is_told_what_it_shows():
    it = outcome("kill-node")
    root = ET.fromstring(draw(it, "kill-node"))
    named = {element.get("id"): element.text for element in root if element.get("id")}
    told = [named[name] for name in root.get("aria-labelledby", "").split()]
    assert told[0] == "kill-node, second by second"
    assert f"{it.sessions_ok} sessions ok, {it.sessions_refused} refused" in told[1]


def test_neighbours_in_a_stack_differ_by_more_than_colour():
    for stack in (WORK, ERRORS):
        assert len({series.hatch for series in stack}) == len(stack)


def test_every_colour_can_be_given_by_the_page():
    picture = draw(outcome("kill-node"), "kill-node")
    for color in set(re.findall(r"#[0-9a-f]{6}", picture)):
        assert f"var(--{VARIABLES[color]}, {color})" in picture
        assert re.search(rf"(?<!, ){color}", picture) is None


def test_two_pictures_of_one_page_share_no_identifier():
    first, second = (set(re.findall(r'id="([^"]+)"', draw(outcome("kill-node"), name))) for name in ("a", "b"))
    assert first
    assert not first & second


def test_every_reference_is_to_the_picture_itself():
    picture = draw(outcome("kill-node"), "kill-node")
    identifiers = set(re.findall(r'id="([^"]+)"', picture))
    referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', picture))
    assert referred
    assert referred <= identifiers
    assert set(re.findall(r"https?://[^\"]+", picture)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "<style" not in picture  # It would speak for the whole page.


@pytest.mark.parametrize(
    "odd",
    [
        evolve(outcome("no load at all"), timeline=()),
        evolve(outcome("nothing"), timeline=(), seconds=0.0, fault_from=0.0, fault_to=0.0),
        evolve(
            outcome("with a gap"), timeline=outcome("with a gap").timeline[:3] + outcome("with a gap").timeline[20:]
        ),
        outcome("a fault from the first second to the last", fault=(0.0, 30.0)),
        outcome("a short fault at the left", fault=(1.0, 1.5)),
        outcome("a short fault at the right", fault=(28.5, 29.0)),
        outcome("two minutes", seconds=120),
        evolve(outcome("mended after it all"), fault_to=99.0),
        evolve(outcome(HOSTILE), broken=HOSTILE),
    ],
    ids=lambda odd: re.sub(r"\W+", "-", odd.scenario),
)
def test_odd_outcomes_have_a_picture_too(odd: Outcome):
    ET.fromstring(draw(odd, "odd"))


def test_a_clock_that_leaps_does_not_make_a_picture_of_years():
    leapt = evolve(outcome("kill-node").timeline[0], at=10**9)
    assert len(draw(evolve(outcome("kill-node"), timeline=(leapt,), seconds=1e9), "leap")) < 400_000
