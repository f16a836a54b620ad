"""A uid never comes twice: not when clocks jump, not on two hosts at one instant."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import names
from store.names import UID, NameSource


def frozen_clock():
    return 1_000_000_000.0


@pytest.mark.invariant("I3")
def test_a_clock_that_stands_still_gives_no_uid_twice():
    source = NameSource(clock=frozen_clock)
    assert len({source.next_uid() for _ in range(1000)}) == 1000


@pytest.mark.invariant("I3")
@given(st.lists(st.floats(0, 4e9), max_size=30))
def test_a_clock_that_jumps_gives_no_uid_twice(times):
    ticks = iter(times)
    source = NameSource(clock=lambda: next(ticks))
    assert len({source.next_uid() for _ in times}) == len(times)


@pytest.mark.invariant("I3")
def test_two_hosts_with_one_clock_and_one_entropy_differ():
    first, second = (NameSource(clock=frozen_clock, host=host, entropy=bytes) for host in ("north", "south"))
    assert first.next_uid() != second.next_uid()


@pytest.mark.invariant("I3")
def test_two_processes_of_one_host_with_one_entropy_differ(monkeypatch):
    first = NameSource(clock=frozen_clock, host="north", entropy=bytes)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert first.next_uid() != NameSource(clock=frozen_clock, host="north", entropy=bytes).next_uid()


@pytest.mark.invariant("I3")
def test_two_lives_of_one_host_and_process_id_differ():
    first, second = (NameSource(clock=frozen_clock, host="north") for _ in range(2))
    assert first.next_uid() != second.next_uid()


def test_uids_have_one_length_and_sort_by_arrival(monkeypatch):
    ticks = iter(float(second) for second in range(0, 4_000_000_000, 400_000_000))
    source = NameSource(clock=lambda: next(ticks))
    uids = [source.next_uid() for _ in range(10)]
    assert uids == sorted(uids)
    assert all(UID.fullmatch(uid) for uid in uids)
    monkeypatch.setattr(names, "COUNT_LIMIT", 2)  # the count starts again and keeps its length
    assert UID.fullmatch(NameSource().next_uid())
