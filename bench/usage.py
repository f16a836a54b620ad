"""
What processes used, from /proc: processor time and memory.

Guarantees  nothing is counted twice: a process's own time includes all its threads (dead ones too), and the time of
            children that ended is added for the root of the tree only, whose children they were.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # /proc counts in these, a hundredth of a second on Linux.
_UTIME, _STIME, _CUTIME, _CSTIME, _PPID = 11, 12, 13, 14, 1  # Fields of /proc/<pid>/stat behind the name.


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree(root: int) -> list[int]:
    """Return a process and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))):
            children.setdefault(int(stat[_PPID]), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int, *, whole_tree: bool) -> float:
    """Return user and system time of a process; with the whole tree, of its descendants, the reaped ones too."""
    ticks = 0
    for pid in tree(root) if whole_tree else [root]:
        stat = _stat(pid)
        if stat:
            ticks += int(stat[_UTIME]) + int(stat[_STIME])
            if whole_tree and pid == root:
                ticks += int(stat[_CUTIME]) + int(stat[_CSTIME])
    return ticks / TICKS


def resident_kib(pid: int) -> int:
    """Return the resident memory of one process."""
    return _field(f"/proc/{pid}/status", "VmRSS:")


def proportional_kib(root: int) -> int:
    """Return the memory of a process tree, pages that several of them share counted once."""
    return sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in tree(root))


def _field(path: str, name: str) -> int:
    try:
        lines = Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


class Neighbours:
    """How much of the processors' time went to programs that are not ours, while it was watched."""

    def __init__(self) -> None:
        self._others = 0.0
        self._all = 0.0

    @property
    def share(self) -> float:
        """Return their share, from 0 to 1."""
        return max(self._others, 0.0) / self._all if self._all else 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch during this block."""
        before = *_machine_seconds(), cpu_seconds(os.getpid(), whole_tree=True)
        try:
            yield
        finally:
            after = *_machine_seconds(), cpu_seconds(os.getpid(), whole_tree=True)
            busy, everything, ours = (b - a for a, b in zip(before, after, strict=True))
            self._others += busy - ours
            self._all += everything


def _machine_seconds() -> tuple[float, float]:
    """Return the time that all processors were busy, and busy or idle. What a hypervisor stole counts as busy."""
    fields = [int(field) / TICKS for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)
