"""How long a stopping node goes on serving: until its balancer has heard of it, and no longer than it must."""

import pytest
from dialogs.memory import Clock

from node.notice import ASKED_SECONDS, NOTICE_SECONDS_MAX, NOTICES, Notice


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notice(clock: Clock) -> Notice:
    return Notice(clock)


def test_a_node_that_nobody_asks_waits_for_nobody(notice: Notice) -> None:
    assert not notice.is_over, "it has not been given"
    notice.give()
    assert notice.is_over


def test_a_page_that_was_asked_for_long_ago_is_nobodys(notice: Notice, clock: Clock) -> None:
    notice.asked()
    clock.now += ASKED_SECONDS
    notice.give()
    assert notice.is_over


def test_it_is_over_when_the_answer_was_given_often_enough(notice: Notice) -> None:
    for _ in range(3 * NOTICES):
        notice.asked()  # These were told "ready".
    notice.give()
    for _ in range(NOTICES):
        assert not notice.is_over
        notice.asked()
    assert notice.is_over


def test_it_is_over_after_its_time_though_somebody_still_asks(notice: Notice, clock: Clock) -> None:
    notice.asked()
    notice.give()
    began = clock.now
    while not notice.is_over:
        clock.now += 0.5
        notice.asked()
    assert clock.now == began + NOTICE_SECONDS_MAX


def test_it_is_over_when_those_who_asked_have_gone(notice: Notice, clock: Clock) -> None:
    notice.asked()
    clock.now += 0.1
    notice.give()
    clock.now += ASKED_SECONDS - 0.2
    assert not notice.is_over
    clock.now += 0.2
    assert notice.is_over
