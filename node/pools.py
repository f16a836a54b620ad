"""
The only door between Twisted and blocking work: two bounded pools, ``disk`` and ``ledger``.

Guarantees  the reactor never waits; a call that takes longer than its limit fails for the caller while its thread
            goes on, so that a share that hangs costs answers, never the node. Work that waits is bounded.
Fails with  Overloaded (too much waits), TimedOut (its ``finished`` fires when the thread is done after all).
Knows       threads and one eventfd. Nothing of mail.

Rejected: twisted.internet.threads.deferToThreadPool. Measured for this house at about 0.1 ms a hop against
0.011 ms for one queue and one wake-up for all finished work, and a POP3 session has two to eight hops.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, ParamSpec, Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from store.errors import Overloaded, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

DISK_THREADS_MAX = 8  # Enough to keep a network share busy; one is enough for a share that answers from memory.
LEDGER_THREADS_MAX = 2  # One exchange of claims in flight, one beat.
STALL_SECONDS = (
    0.005  # A call that has waited longer for a thread gets a thread more: the interpreter's own switch interval.
)
WAITING_MAX = 4096  # Calls that wait for a thread; then new ones are refused at once.
DISK_SECONDS_MAX = 30.0  # A share that takes longer hangs as far as a mail client can tell.
LEDGER_SECONDS_MAX = 8.0  # Above the socket's own time-outs: those should speak first.


class TimedOut(Unavailable):
    """The work did not end in time, but it still runs; ``finished`` fires when it is over."""

    def __init__(self, detail: str, finished: Deferred[None]) -> None:
        super().__init__(detail)
        self.finished = finished


class Readers(Protocol):
    """The two methods of a reactor that a pool needs (twisted's IReactorFDSet)."""

    def addReader(self, reader: "ThreadPool") -> None:  # noqa: N802
        """Watch a descriptor."""
        ...

    def removeReader(self, reader: "ThreadPool") -> None:  # noqa: N802
        """Watch it no longer."""
        ...


class Pool(Protocol):
    """Where blocking work goes."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function off the reactor; the Deferred fires on the reactor."""
        ...


class InlinePool:
    """The double for tests: the work is done at once, where it stands."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function now."""
        return execute(function, *args, **kwargs)


@define(eq=False)
class _Call(Generic[T]):
    """One call on its way. ``finished`` exists only for one that timed out."""

    work: Callable[[], T]
    answer: Deferred[T]
    began: float
    outcome: T | None = None
    failure: BaseException | None = None
    finished: Deferred[None] | None = None


@implementer(IReadDescriptor)
class ThreadPool:
    """
    A queue, as few threads as keep up with it, and one wake-up for everything they finished.

    Threads that work at the same time fight for the interpreter: measured with 32 busy clients, eight threads make
    three times the system calls of one. So one thread works, and another is woken only when a call has waited for
    STALL_SECONDS, which is when the share, not the interpreter, is slow.
    """

    def __init__(
        self,
        name: str,
        reactor: Readers,
        *,
        threads: int,
        seconds_max: float,
        clock: Callable[[], float] = time.monotonic,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """
        Begin without a thread.

        :param call_soon: calls a function at the end of the reactor's turn, so that all calls of a turn wake one thread
            once, when the reactor has let go of the interpreter; without it each call wakes by itself.
        """
        self.name = name
        self._reactor = reactor
        self._threads_max = threads
        self._seconds_max = seconds_max
        self._clock = clock
        self._call_soon = call_soon
        self._flushing = False
        self._queue: deque[_Call[object] | None] = deque()
        self._done: deque[_Call[object]] = deque()
        self._open: dict[int, _Call[object]] = {}
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []  # Sleeping threads, each by the lock that wakes it; the last slept first.
        self._threads = 0
        self._working = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._woken = False
        reactor.addReader(self)

    @property
    def waiting(self) -> int:
        """Return how many calls have no answer yet."""
        return len(self._open)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function in a thread. Called on the reactor only."""
        answer: Deferred[T] = Deferred()
        if len(self._open) >= WAITING_MAX:
            answer.errback(Overloaded(f"{len(self._open)} calls wait for the {self.name} already"))
            return answer
        work = (lambda: function(*args, **kwargs)) if args or kwargs else function
        call: _Call[T] = _Call(work, answer, self._clock())
        self._open[id(call)] = call  # type: ignore[assignment]  # the queue carries calls of every type
        self._queue.append(call)  # type: ignore[arg-type]
        if self._call_soon is None:
            self._staff()
        elif not self._flushing:
            self._flushing = True
            self._call_soon(self._staff)
        return answer

    def expire(self) -> None:
        """Fail the calls that are past their limit, and help those that stall. The node calls this every second."""
        limit = self._clock() - self._seconds_max
        for call in [call for call in self._open.values() if call.began < limit and call.finished is None]:
            call.finished = Deferred()
            call.answer.errback(
                TimedOut(f"the {self.name} has not answered for {self._seconds_max:.0f} s; is it there?", call.finished)
            )
        self._staff()

    def close(self) -> None:
        """Let the threads end when their work is done; nothing is waited for."""
        self._reactor.removeReader(self)
        with self._lock:
            self._queue.extend([None] * self._threads)
            idle, self._idle = self._idle, []
            self._working += len(idle)
        for sleeper in idle:
            sleeper.release()

    def _staff(self) -> None:
        """Put a thread to work if none is, or if the oldest call has waited too long."""
        self._flushing = False
        with self._lock:
            oldest = self._queue[0] if self._queue else None
            if oldest is None or (self._working and self._clock() - oldest.began < STALL_SECONDS):
                return
            if self._idle:
                self._working += 1
                self._idle.pop().release()
            elif self._threads < self._threads_max:
                self._working += 1
                self._threads += 1
                # A daemon: a thread that hangs in a dead mount must not keep a node from ending.
                name = f"{self.name}-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()

    def _next(self, sleeper: threading.Lock) -> "_Call[object] | None":
        """Return the next call, after a sleep where there is none; None ends the thread."""
        while True:
            with self._lock:
                if self._queue:
                    return self._queue.popleft()
                self._working -= 1
                self._idle.append(sleeper)
            sleeper.acquire()

    def _work(self) -> None:
        sleeper = threading.Lock()
        sleeper.acquire()
        while (call := self._next(sleeper)) is not None:
            try:
                call.outcome = call.work()
            except BaseException as error:  # noqa: BLE001 (whatever it was, the caller on the reactor has to hear it)
                call.failure = error
            self._done.append(call)
            if not self._woken:
                self._woken = True
                os.eventfd_write(self._wake, 1)

    # IReadDescriptor: the reactor's side

    def fileno(self) -> int:
        """Return the eventfd."""
        return self._wake

    def logPrefix(self) -> str:  # noqa: N802
        """Name this reader in the reactor's own errors."""
        return f"pool {self.name}"

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        """Never comes: an eventfd has no other end."""

    def doRead(self) -> None:  # noqa: N802
        """Hand out the answers of everything that is finished."""
        os.eventfd_read(self._wake)
        self._woken = False  # Before looking: a thread that finishes from here on wakes us once more.
        done = self._done
        while done:
            call = done.popleft()
            del self._open[id(call)]
            if call.finished is not None:
                call.finished.callback(None)
            elif call.failure is not None:
                call.answer.errback(call.failure)
            else:
                call.answer.callback(call.outcome)
