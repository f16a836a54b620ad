"""A lab with a history while the tests of a module use it, and the judgement of its logs afterwards."""

import contextlib
from collections.abc import Iterator

from journals import judge_logs
from scene import Scene

from node.lab import Lab

figures: dict[str, str] = {}  # What docs/FAILURES.md publishes; conftest.py shows them at the end of the run.


@contextlib.contextmanager
def running(lab: Lab) -> Iterator[Scene]:
    made = Scene(lab, figures)
    try:
        lab.start()
        lab.populate()
        yield made
    finally:
        lab.stop()
    judge_logs(made)
