"""Each invariant of docs/ARCHITECTURE.md has tests that name it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INVARIANTS = re.findall(r"^\| (I\d+) \|", (ROOT / "docs/ARCHITECTURE.md").read_text(), re.MULTILINE)


def test_there_are_ten() -> None:
    assert [f"I{number}" for number in range(1, 11)] == INVARIANTS


@pytest.mark.parametrize("name", INVARIANTS)
def test_an_invariant_has_tests_that_name_it(name: str) -> None:
    naming = [path for path in (ROOT / "tests").rglob("test_*.py") if f'"{name}"' in path.read_text()]
    assert naming, f"no test is marked with @pytest.mark.invariant({name!r})"
