"""The door to blocking work: real threads, and a reactor that the test turns by hand."""

import select
import threading
from collections.abc import Callable, Iterator

import pytest
from dialogs.memory import Clock
from support import wait_until
from twisted.internet.defer import Deferred

from node import pools
from node.pools import STALL_SECONDS, InlinePool, ThreadPool, TimedOut
from store.errors import Overloaded


class HandReactor:
    """Watches one descriptor, and looks at it when told to."""

    def __init__(self) -> None:
        self.readers: list[ThreadPool] = []

    def addReader(self, reader: ThreadPool) -> None:  # noqa: N802
        self.readers.append(reader)

    def removeReader(self, reader: ThreadPool) -> None:  # noqa: N802
        self.readers.remove(reader)

    def turn(self) -> None:
        for reader in self.readers:
            if select.select([reader.fileno()], [], [], 0)[0]:
                reader.doRead()


class Scene:
    """A pool, its clock, its reactor, and calls that end when the test says so."""

    def __init__(self) -> None:
        self.reactor, self.clock = HandReactor(), Clock()
        self.gates: list[threading.Event] = []
        self.pool = ThreadPool("disk", self.reactor, threads=2, seconds_max=30.0, clock=self.clock)

    def answer(self, deferred: Deferred) -> object:
        """Turn the reactor until there is an answer."""
        answers: list[object] = []
        deferred.addBoth(answers.append)

        def turned() -> bool:
            self.reactor.turn()
            return bool(answers)

        wait_until(turned, or_fail="the pool never answered")
        return answers[0]

    def stall(self) -> None:
        """Let what waits have waited for too long."""
        self.clock.now += 2 * STALL_SECONDS
        self.pool.expire()

    def hang(self, *, after_stall: bool = False) -> tuple[Deferred, threading.Event]:
        """Run a call that lasts until its gate is opened."""
        gate, started = threading.Event(), threading.Event()
        self.gates.append(gate)

        def work() -> str:
            started.set()
            gate.wait(20)
            return "late"

        answer = self.pool.run(work)
        if after_stall:
            self.stall()
        wait_until(started.is_set, or_fail="the work never began")
        return answer, gate


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for gate in made.gates:
        gate.set()
    if made.reactor.readers:
        made.pool.close()


def test_work_is_done_in_another_thread_and_answered_in_ours(scene: Scene) -> None:
    ours: list[threading.Thread] = []
    answer = scene.pool.run(lambda left, *, right: (left + right, threading.current_thread()), 1, right=2)
    answer.addCallback(lambda told: (ours.append(threading.current_thread()), told)[1])
    result = scene.answer(answer)
    assert isinstance(result, tuple)
    assert result[0] == 3
    assert result[1] is not threading.current_thread()
    assert ours == [threading.current_thread()]
    assert scene.pool.waiting == 0


def test_a_failure_is_the_caller_s(scene: Scene) -> None:
    def broken() -> None:
        raise KeyError("x")

    failure = scene.answer(scene.pool.run(broken))
    assert failure.check(KeyError)
    assert scene.answer(scene.pool.run(lambda: "alive")) == "alive"


def test_many_calls_are_all_answered_in_order_by_one_thread(scene: Scene) -> None:
    answers: list[int] = []
    for number in range(500):
        scene.pool.run(lambda number=number: number).addCallback(answers.append)
    assert scene.answer(scene.pool.run(lambda: "last")) == "last"
    assert answers == list(range(500))
    assert scene.pool._threads == 1


def test_a_call_that_hangs_fails_in_time_and_tells_when_it_is_over(scene: Scene) -> None:
    answer, gate = scene.hang()
    outcomes: list[object] = []
    answer.addErrback(outcomes.append)
    scene.clock.now += 29
    scene.pool.expire()
    assert not outcomes
    scene.clock.now += 2
    scene.pool.expire()
    failure = outcomes[0]
    assert failure.check(TimedOut)
    finished: list[object] = []
    failure.value.finished.addCallback(finished.append)
    scene.pool.expire()
    assert not finished
    assert scene.pool.waiting == 1, "its thread is still at it"
    gate.set()
    scene.answer(failure.value.finished)
    assert finished == [None]
    assert len(outcomes) == 1
    assert scene.pool.waiting == 0


def test_a_second_thread_helps_only_where_a_call_has_stalled(scene: Scene) -> None:
    scene.hang()
    second = scene.pool.run(lambda: "second")
    assert scene.pool._threads == 1
    scene.stall()
    assert scene.answer(second) == "second"
    assert scene.pool._threads == 2
    third = scene.pool.run(lambda: "third")
    scene.stall()
    assert scene.answer(third) == "third"
    assert scene.pool._threads == 2, "the one that slept was woken"


def test_all_threads_hang_and_what_waits_is_done_when_one_comes_back(scene: Scene) -> None:
    _, first_gate = scene.hang()
    scene.hang(after_stall=True)
    waiting = scene.pool.run(lambda: "patience")
    scene.stall()
    scene.reactor.turn()
    assert scene.pool._threads == 2, "never more than the limit"
    assert not waiting.called
    first_gate.set()
    assert scene.answer(waiting) == "patience"


def test_work_that_waits_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "WAITING_MAX", 3)
    _, gate = scene.hang()
    waiting = [scene.pool.run(lambda: "ok") for _ in range(2)]
    failures: list[object] = []
    scene.pool.run(lambda: "never").addErrback(failures.append)
    assert failures[0].check(Overloaded)
    gate.set()
    assert scene.answer(waiting[-1]) == "ok"
    assert scene.answer(scene.pool.run(lambda: "again")) == "again"


def test_a_closed_pool_ends_its_threads_after_their_work() -> None:
    scene = Scene()
    _, gate = scene.hang()
    idle = scene.pool.run(lambda: "done")
    scene.stall()
    assert scene.answer(idle) == "done"
    scene.pool.close()
    assert scene.reactor.readers == []
    gate.set()
    wait_until(
        lambda: not any(thread.name.startswith("disk-") and thread.is_alive() for thread in threading.enumerate()),
        or_fail="a thread outlived its pool",
    )


def test_all_calls_of_a_turn_wake_one_thread_once() -> None:
    soon: list[Callable[[], None]] = []
    scene = Scene()
    pool = ThreadPool("disk", scene.reactor, threads=2, seconds_max=30.0, clock=scene.clock, call_soon=soon.append)
    answers = [pool.run(lambda number=number: number) for number in range(3)]
    assert len(soon) == 1
    assert pool._threads == 0
    soon.pop()()
    assert [scene.answer(answer) for answer in answers] == [0, 1, 2]
    last = pool.run(lambda: "next turn")
    soon.pop()()
    assert scene.answer(last) == "next turn"
    pool.close()
    scene.pool.close()


def test_what_the_reactor_asks_of_a_reader(scene: Scene) -> None:
    assert scene.pool.logPrefix() == "pool disk"
    assert scene.pool.connectionLost(None) is None


def test_the_double_does_the_work_where_it_stands() -> None:
    results: list[object] = []
    InlinePool().run(lambda left, right: left + right, 1, right=2).addCallback(results.append)
    InlinePool().run(lambda: 1 // 0).addErrback(lambda failure: results.append(failure.type))
    assert results == [3, ZeroDivisionError]
