"""The page of a drill: it says everything, trusts no text, needs nothing from outside, and is there whole or not at all."""

import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve
from drill_reports import HOSTILE, bad_report, good_report, outcome, skipped

from node.drill import figures, page
from node.drill.outcome import Report
from store.errors import Refused


class Reader(HTMLParser):
    """What a browser would find in a page: its tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def good() -> Reader:
    return Reader(page.render(good_report()))


def test_the_page_says_where_when_and_how_it_was_made(good: Reader):
    assert "3 nodes of mailroot lab" in good.text
    assert "version 0.1.0" in good.text
    assert "2 cores, Linux 6.1, Python 3.11" in good.text
    assert "2026-11-24 19:12:54 UTC" in good.text
    assert "mailroot drill --on lab" in good.text


def test_each_scenario_has_a_section_with_its_sentence_and_each_promise_its_measure(good: Reader):
    for it in figures.tried(good_report()):
        assert it.scenario in good.values("id")
        assert f"#{it.scenario}" in good.values("href")
        assert it.broken in good.text
        for promise in it.promises:
            assert f"{promise.text} {promise.measured}" in good.text
    assert good.tags.count("svg") == 9


def test_the_banner_of_a_good_day(good: Reader):
    assert "✓ Everything as promised. 9 scenarios, 36 promises, all kept; 1 skipped." in good.text
    assert "banner kept" in good.values("class")


def test_broken_promises_stand_in_the_banner():
    text = page.render(bad_report())
    bad = Reader(text)
    assert "banner bad" in bad.values("class")
    banner = text[text.index('class="banner') : text.index("</div>")]
    assert "2 promises broken: look at kill-node." in banner
    assert "“no accepted message is lost” was broken: 1 of" in banner
    assert "4.31 s (at most 2.0 s)" in banner
    assert "P3000000000017 was accepted for drill07@example.com" in bad.text
    assert bad.text.count("✗ broken") == 2


def test_what_was_skipped_is_told_with_its_reason(good: Reader):
    assert "fail-over-sentinel : the lab has one ledger; use --on compose with the profile sentinel" in good.text
    nothing = Reader(page.render(evolve(good_report(), outcomes=(skipped("kill-node", "there is one node only"),))))
    assert "Nothing was tried." in nothing.text
    assert "banner idle" in nothing.values("class")


def test_every_word_is_explained(good: Reader):
    for word in ("refused", "broken", "unreachable", "take-over", "lost", "twice", "not asked", "two holders"):
        assert f"{word} {figures.WORDS[word]}" in good.text


def hostile_report() -> Report:
    """A report in which every text is one that a page should not believe."""
    killed = bad_report().outcomes[0]
    promises = tuple(evolve(promise, text=HOSTILE, measured=HOSTILE) for promise in killed.promises)
    killed = evolve(
        killed, scenario=HOSTILE, broken=HOSTILE, began=HOSTILE, refusals={HOSTILE: 1}, violations=(HOSTILE,), promises=promises
    )  # fmt: skip
    return evolve(
        good_report(),
        place=HOSTILE, command=HOSTILE, version=HOSTILE, machine=HOSTILE, began=f'"{HOSTILE}',
        outcomes=(killed, evolve(killed, scenario='" onload="alert(1)'), skipped(HOSTILE, HOSTILE)),
    )  # fmt: skip


def test_no_text_is_believed():
    text = page.render(hostile_report())
    hostile = Reader(text)
    assert "<script" not in text
    assert "script" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert hostile.text.count(HOSTILE) > 20


def test_nothing_comes_from_outside(good: Reader):
    assert not good.values("src")
    assert all(value.startswith("#") for name in ("href", "xlink:href") for value in good.values(name))
    assert set(re.findall(r"https?://[^\s\"'<]+", page.render(good_report()))) == {
        "http://www.w3.org/2000/svg",  # Names of XML, never fetched.
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in page.render(good_report())
    assert all(found == "url(#" for found in re.findall(r"url\(.", page.render(good_report())))
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(good.tags)
    assert "default-src 'none'; style-src 'unsafe-inline'" in good.values("content")


def test_every_identifier_is_there_once_and_every_link_leads_somewhere():
    twice = evolve(good_report(), outcomes=(outcome("kill-node"), outcome("kill-node"), outcome("words"), outcome("…")))
    found = Reader(page.render(twice))
    identifiers = found.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert {link.removeprefix("#") for link in found.values("href")} <= set(identifiers)


def test_every_picture_is_well_formed():
    pictures = re.findall(r"<svg.*?</svg>", page.render(bad_report()), re.DOTALL)
    assert len(pictures) == 9
    for picture in pictures:
        ET.fromstring(picture)


def test_a_report_that_went_through_json_has_the_same_page():
    assert page.render(Report.from_json(bad_report().as_json())) == page.render(bad_report())


def test_a_thousand_violations_do_not_make_a_page_of_a_thousand_lines():
    killed = evolve(bad_report().outcomes[0], violations=tuple(f"message {number} is gone" for number in range(1000)))
    assert "… and 900 more; --json shows all" in page.render(evolve(bad_report(), outcomes=(killed,)))


def test_a_page_is_written_whole_and_for_everybody_who_may_read_the_directory(tmp_path: Path):
    path = tmp_path / "drill.html"
    path.write_text("an older one")
    page.write(good_report(), path)
    assert path.read_text(encoding="utf-8") == page.render(good_report())
    assert [entry.name for entry in tmp_path.iterdir()] == ["drill.html"]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_page_that_cannot_be_written_leaves_the_older_one_and_no_litter(tmp_path: Path, monkeypatch):
    path = tmp_path / "drill.html"
    path.write_text("an older one")

    def full(*_arguments, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Refused, match="can't be written: No space left on device"):
        page.write(good_report(), path)
    assert path.read_text() == "an older one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["drill.html"]


def test_a_directory_that_is_not_there_is_told_before_the_drill(tmp_path: Path):
    with pytest.raises(Refused, match=f"there is no directory {tmp_path / 'reports'}; make it first"):
        page.check(tmp_path / "reports" / "drill.html")
    with pytest.raises(Refused, match="is a directory; give the page a file name in it"):
        page.check(tmp_path)
    with pytest.raises(Refused, match="there is no directory"):
        page.write(good_report(), tmp_path / "reports" / "drill.html")
