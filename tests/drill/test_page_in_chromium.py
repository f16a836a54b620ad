"""The page in a real browser: it shows something, wide and narrow, by day and by night, and the verdict is in it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from drill_reports import bad_report, good_report
from matplotlib import image

from node.drill import page

LIMIT_SECONDS = 180  # Only ends a browser that hangs: it needs three on an idle machine.
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "no chromium here (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; .ci/run installs it")
        pytest.skip(reason)
    return found


class Browser:
    """Chromium without a window, with a profile of its own."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program, self._directory = program, directory

    def run(self, path: Path, *options: str) -> str:
        done = subprocess.run(
            [
                self._program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                "--disable-dev-shm-usage", f"--user-data-dir={self._directory / 'profile'}", *options, path.as_uri(),
            ],
            capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(self._directory)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def look(self, path: Path, width: int, *options: str) -> np.ndarray:
        """Return the pixels of the page's top, 0 to 255."""
        picture = self._directory / f"{path.stem}-{width}.png"
        self.run(path, f"--screenshot={picture}", f"--window-size={width},1400", *options)
        return np.round(image.imread(picture)[:, :, :3] * 255).astype(int)


@pytest.fixture
def browser(chromium: str, tmp_path: Path) -> Browser:
    return Browser(chromium, tmp_path)


@pytest.fixture
def good_page(tmp_path: Path) -> Path:
    page.write(good_report(), tmp_path / "good.html")
    return tmp_path / "good.html"


def colors_of(pixels: np.ndarray) -> int:
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def shows(pixels: np.ndarray, color: str) -> int:
    """Return how many pixels have a colour."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=2) <= 2).sum())


def test_the_page_is_shown_with_its_pictures_and_nothing_is_missing(browser: Browser, good_page: Path):
    pixels = browser.look(good_page, 1200)
    assert colors_of(pixels) > 50
    assert shows(pixels, "#e4f3e9") > 10_000, "the banner of a good day is not there"
    assert shows(pixels, "#0072b2") > 10_000, "no sessions in the picture"
    assert shows(pixels, "#f3d9d3") > 1_000, "no fault in the picture"


def test_a_bad_day_looks_like_one(browser: Browser, tmp_path: Path):
    page.write(bad_report(), tmp_path / "bad.html")
    assert shows(browser.look(tmp_path / "bad.html", 1200), "#fbe7e5") > 10_000


def test_on_a_narrow_screen_only_wide_things_scroll(browser: Browser, good_page: Path):
    pixels = browser.look(good_page, 500)  # Chromium has no narrower window.
    assert pixels.shape[1] == 500
    assert colors_of(pixels) > 50
    margin = pixels[:, -10:]  # What were wider than the window would be there.
    assert shows(margin, "#ffffff") == margin.shape[0] * margin.shape[1]


def test_by_night_it_is_dark(browser: Browser, good_page: Path):
    pixels = browser.look(good_page, 1200, DARK)
    assert tuple(pixels[5, 5]) == (0x14, 0x19, 0x1D)
    assert shows(pixels, "#2b8fd0") > 10_000, "the picture does not follow the page's colours"


def test_the_browser_reads_the_verdict(browser: Browser, tmp_path: Path):
    page.write(bad_report(), tmp_path / "bad.html")
    seen = browser.run(tmp_path / "bad.html", "--dump-dom")
    assert "2 promises broken: look at kill-node." in seen
    assert seen.count("<svg") == 9
