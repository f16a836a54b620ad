"""
The notice that a stopping node gives to its balancer: "not ready" on its pages, while it still serves everybody.

A balancer learns that a node leaves from its next checks. Until it has, it places clients here; a node that closed its
ports at once would refuse them. So the stop begins with a notice, which is over when the balancer must have understood,
or after a time that an operator can wait, and takes no time where nobody asks.

Knows       when a page of readiness was asked for. Nothing of HTTP.
"""

import time
from collections.abc import Callable

NOTICES = 8  # Answers: three sections of an HAProxy with `fall 2`, each with checks of its own, and two to spare.
NOTICE_SECONDS_MAX = 3.0  # HAProxy's `inter 1s fall 2` and a check that has just been made; longer is no quick stop.
# Whoever asks less often than this is no balancer that could understand in time: a person, a container's HEALTHCHECK.
ASKED_SECONDS = 1.5


class Notice:
    """Counts how often the answer "not ready" was given since the node began to stop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = float("-inf")
        self._given_at: float | None = None
        self._answers = 0

    def asked(self) -> None:
        """Note that a page of readiness is being answered."""
        self._asked_at = self._clock()
        self._answers += self._given_at is not None

    def give(self) -> None:
        """Begin: from now on every answer is "not ready"."""
        self._given_at = self._clock()

    @property
    def is_over(self) -> bool:
        """Tell whether nobody needs to be waited for (any more)."""
        if self._given_at is None:
            return False
        now = self._clock()
        return (
            self._answers >= NOTICES
            or now - self._given_at >= NOTICE_SECONDS_MAX
            or now - self._asked_at >= ASKED_SECONDS
        )
