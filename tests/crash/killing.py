"""
A process that really dies, at a system call of our choice.

``life()`` forks; the child does its work with a counting double in place of ``store.files.os`` and kills itself with
SIGKILL at the chosen call. A child that gets to the end says so through a pipe, and is killed right after.
"""

import itertools
import os
import signal
import traceback
import warnings
from collections.abc import Callable

import pytest
from attrs import frozen

from store import files

MODES = ("before", "after", "half")
RETURNED = b"returned"
LIMIT = 400  # No work of these tests has so many calls: a test that never ends is a failure.


@frozen
class Life:
    """How it ended: whether the work returned, and the system calls that were begun."""

    returned: bool
    calls: tuple[str, ...]


class DyingDisk:
    """
    ``os``, which kills the process at a call.

    ``mode``: "before" the n-th call, "after" it, or when the n-th os.write has written "half" of its bytes.
    """

    def __init__(self, mode: str, die_at: int, report: int) -> None:
        self._mode, self._die_at, self._report = mode, die_at, report
        self._seen = 0

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if not callable(real):
            return real

        def call(*arguments: object, **options: object) -> object:
            os.write(self._report, f"{name}\n".encode())
            self._seen += self._mode != "half" or name == "write"
            dying = self._seen == self._die_at
            if dying and self._mode == "before":
                die()
            if dying and self._mode == "half" and name == "write":
                descriptor, content = arguments
                os.write(descriptor, content[: len(content) // 2])
                die()
            try:
                return real(*arguments, **options)
            finally:  # "No such file" is an answer too.
                if dying and self._mode == "after":
                    die()

        return call


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def life(work: Callable[[], object], mode: str, die_at: int) -> Life:
    """Run the work in a child that is killed; return how far it came."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; the child takes no lock of theirs
        child = os.fork()
    if child == 0:
        try:
            files.os = DyingDisk(mode, die_at, writing)
            work()
            os.write(writing, RETURNED)
        except BaseException:
            os.write(writing, b"failed\n" + traceback.format_exc().encode())
        die()
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        said = report.read()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    if b"failed\n" in said:
        pytest.fail(said.decode())
    lines = said.split(b"\n")
    return Life(lines[-1] == RETURNED, tuple(line.decode() for line in lines[:-1]))


def every_death(mode: str, prepare: Callable[[], tuple[Callable[[], object], Callable[[bool], None]]]) -> Life:
    """
    Kill the work at its first call, at its second, … until it comes to its end; look at the world after each.

    :param prepare: makes a fresh world; returns the work, and the check that is told whether the work returned.
    :returns: the life that came to its end. The number of deaths is the number of its calls (mode "half": writes).
    """
    for die_at in itertools.count(1):
        assert die_at < LIMIT
        work, check = prepare()
        lived = life(work, mode, die_at)
        check(lived.returned)
        if lived.returned:
            expected = lived.calls.count("write") if mode == "half" else len(lived.calls)
            assert die_at == expected + 1
            return lived
    raise AssertionError
