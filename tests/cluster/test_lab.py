"""`mailroot lab`: the story tells the truth, and Ctrl-C leaves no process and no file."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import mailroot

pytestmark = pytest.mark.cluster


def test_the_story_comes_out_as_promised():
    told = mailroot("lab", "--check")
    text = told.stdout.decode()
    assert told.returncode == 0, text
    assert "FAIL" not in text
    assert text.endswith("Everything as promised.\n")


def children(pid: int) -> set[int]:
    """Return the processes below a process."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found |= {child} | children(child)
    return found


def test_the_lab_shows_one_screen_and_leaves_nothing(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "node.cli", "lab", "--nodes", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    ) as lab:
        assert lab.stdout is not None
        screen = ""
        while "make a mailbox" not in screen:
            line = lab.stdout.readline()
            assert line, screen
            screen += line
        running = children(lab.pid)
        lab.send_signal(signal.SIGINT)
        rest = lab.stdout.read()
        assert lab.wait(30) == 0, rest
    assert "2 nodes, one mail store, one ledger" in screen
    assert "ada@example.com / lovelace" in screen
    shown = {int(pid) for pid in re.findall(r"^  node\d .* (\d+)$", screen, re.MULTILINE)}
    assert len(shown) == 2
    assert shown < running, "two nodes, and the ledger"
    assert rest.endswith("Stopped; nothing is left running.\n")
    assert not [pid for pid in running if Path(f"/proc/{pid}").exists()]
    assert not list(tmp_path.iterdir())
