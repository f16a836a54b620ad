"""What a drill shows while it runs: lines in a log, a live part on a terminal, and a terminal that is whole afterwards."""

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from drill_reports import bad_report, outcome, skipped
from support import wait_until

from node.drill import progress

# A drill of one scenario, played on a terminal: what it prints on standard output is the JSON of `--json -`.
DRILL = """
import sys
sys.path.insert(0, sys.argv[1])
from drill_reports import outcome
from node.drill import progress
try:
    with progress.shown(2) as display:
        display.begin("kill-node", "node2 gets SIGKILL", 3)
        display.step("waiting for the load")
        display.tick(120, 3, 1, 44)
        print('{"kept": true}', flush=True)
        print("a warning of a library", file=sys.stderr)
        sys.stdin.readline()
        display.end(outcome("kill-node"))
        display.begin("stop-node", "node2 gets SIGTERM", 3)
        display.step("draining")
        sys.stdin.readline()
except KeyboardInterrupt:
    sys.exit(130)
"""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_each_event_is_a_line():
    stream, clock = io.StringIO(), Clock()
    with progress.shown(2, stream, clock) as display:
        display.begin("kill-node", "node2 gets SIGKILL", 3)
        clock.now += 5.25
        display.step("SIGKILL")
        display.tick(100, 0, 0, 50)
        it = outcome("kill-node")
        display.end(it)
        display.begin("fail-over-sentinel", "the primary is killed", 3)
        display.end(skipped("fail-over-sentinel", "the lab has one ledger"))
    figures = f"sessions {it.sessions_ok} ok, {it.sessions_refused} refused, {it.sessions_broken} broken; {it.accepted} accepted"
    assert stream.getvalue().splitlines() == [
        "kill-node (1 of 2): node2 gets SIGKILL",
        "     5.2 s  SIGKILL",
        f"✓ kill-node              29.6 s  {figures}, 0 lost; take-over 1.12 s",
        "fail-over-sentinel (2 of 2): the primary is killed",
        "- fail-over-sentinel             skipped: the lab has one ledger",
    ]


def test_a_broken_promise_has_another_mark():
    stream = io.StringIO()
    with progress.shown(1, stream) as display:
        display.begin("kill-node", "node2 gets SIGKILL", 1)
        display.end(bad_report().outcomes[0])
    assert "✗ kill-node" in stream.getvalue()
    assert "1 lost; take-over 4.31 s" in stream.getvalue()


def test_what_a_server_said_does_not_move_the_cursor():
    stream = io.StringIO()
    with progress.shown(1, stream) as display:
        display.begin("kill-node", "\x1b[2Jnode2", 1)
        display.step("it said \r\nnothing")
        display.end(evolve(outcome("kill-node"), scenario="kill\x07node"))
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    assert "it said ??nothing\n" in stream.getvalue()


class Terminal:
    """A drill that runs on a terminal of its own; everything that the terminal was sent."""

    def __init__(self, columns: int) -> None:
        self._main, other = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRILL, str(Path(__file__).parent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=other, start_new_session=True,
            env=environment | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"},
        )  # fmt: skip
        os.close(other)
        self.sent = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux says EIO when the last process has left the terminal.
            while octets := os.read(self._main, 4096):
                self.sent += octets

    @property
    def text(self) -> str:
        """Return what was shown, without the terminal's orders."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.sent.decode(errors="replace"))

    def line(self) -> None:
        """Let the drill go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def close(self) -> bytes:
        """Wait for the drill's end; return its standard output."""
        output, _ = self.process.communicate(timeout=60)
        self._reader.join()
        return output

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.close()
        os.close(self._main)


@pytest.fixture(params=[120, 60], ids=["wide", "narrow"])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    shown = Terminal(request.param)
    yield shown
    shown.end()


def test_on_a_terminal_it_lives_and_standard_output_stays_clean(terminal: Terminal):
    wait_until(lambda: "120 ok, 3 refused, 1 broken; 44" in terminal.text, or_fail="no counts were shown", seconds=60)
    assert "waiting for the load" in terminal.text
    assert "0 of 2 scenarios" in terminal.text
    terminal.line()
    wait_until(lambda: "draining" in terminal.text, or_fail="the second scenario was never shown", seconds=60)
    wait_until(lambda: "1 of 2 scenarios" in terminal.text, or_fail="the bar stands still", seconds=60)
    assert "✓ kill-node" in terminal.text
    terminal.line()
    assert terminal.close() == b'{"kept": true}\n'
    assert terminal.process.returncode == 0
    assert "a warning of a library" in terminal.text
    assert terminal.sent.decode().rindex(SHOW_CURSOR) > terminal.sent.decode().rindex(HIDE_CURSOR)


def test_ctrl_c_gives_the_terminal_back(terminal: Terminal):
    wait_until(lambda: "waiting for the load" in terminal.text, or_fail="nothing was shown", seconds=60)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == b'{"kept": true}\n'
    assert terminal.process.returncode == 130
    shown = terminal.sent.decode()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert "Traceback" not in shown
