"""
Is this node alive, is it ready, and what has it done: /healthz, /readyz, /readyz/mail, /metrics.

Guarantees  /healthz answers 200 as long as the reactor turns. /readyz is 200 only when a login would succeed, and
            /readyz/mail when a delivery would; they say what is wrong otherwise. Nothing here names a user or carries a secret (I10).
Knows       prometheus_client, Twisted's web. What is measured is brought by the caller.
"""

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

# Seconds of an ask: from a cached listing to a share that hangs.
ASK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)

ASKS = ("open", "fetch", "remove", "deliver")

# The values of the labels. Each shows from the start, with 0: a rate needs two looks at a counter to see it rise, and
# would miss the first failure of a node's life, perhaps the only one.
SESSION_ENDS = ("quit", "lost", "refused", "stopped", "autologout", "broken", "bug")
LOGIN_ANSWERS = ("ok", "AUTH", "IN-USE", "SYS/TEMP", "SYS/PERM")
DELIVERY_PROTOCOLS = ("LMTP", "ESMTP")
DELIVERY_OUTCOMES = ("ok", "failed")


class Metrics:
    """The counters of one node process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._sessions = Counter(
            "mailroot_sessions", "POP3 sessions that ended, by how", ["end"], registry=self.registry
        )
        self._logins = Counter("mailroot_logins", "Answers to PASS and AUTH", ["answer"], registry=self.registry)
        self._commands = Counter("mailroot_commands", "POP3 commands served", registry=self.registry)
        self._deliveries = Counter(
            "mailroot_deliveries",
            "Recipients of messages, by protocol and outcome",
            ["protocol", "outcome"],
            registry=self.registry,
        )
        asks = Histogram(
            "mailroot_ask_seconds",
            "Seconds of each ask of the store and the ledger",
            ["ask"],
            buckets=ASK_SECONDS,
            registry=self.registry,
        )

        # labels() looks a child up under a lock each time; there are few of them.
        self._asks = {ask: asks.labels(ask) for ask in ASKS}
        self._session_end = cache(self._sessions.labels)
        self._login_answer = cache(self._logins.labels)
        for end in SESSION_ENDS:
            self._session_end(end)
        for answer in LOGIN_ANSWERS:
            self._login_answer(answer)
        for protocol, outcome in product(DELIVERY_PROTOCOLS, DELIVERY_OUTCOMES):
            self._deliveries.labels(protocol, outcome)

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when somebody looks."""
        Gauge(f"mailroot_{name}", help_text, registry=self.registry).set_function(value)

    def count_session(self, end: str, commands: int) -> None:
        """Count a session that ended."""
        self._session_end(end).inc()
        self._commands.inc(commands)

    def count_login(self, answer: str) -> None:
        """Count an answer to a login: ``ok`` or its response code."""
        self._login_answer(answer).inc()

    def count_delivery(self, protocol: str, outcome: str) -> None:
        """Count one recipient of a message."""
        self._deliveries.labels(protocol, outcome).inc()

    def observe(self, ask: str, seconds: float) -> None:
        """Note how long an ask took."""
        self._asks[ask].observe(seconds)


class _Page(Resource):
    """A JSON page. ``look`` returns the HTTP status and the object."""

    def __init__(self, look: Callable[[], tuple[int, dict[str, object]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web has no types here
        self._look = look

    def render_GET(self, request: Request) -> bytes:  # noqa: N802
        """Answer."""
        status, page = self._look()
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", b"application/json")  # type: ignore[no-untyped-call]
        return json.dumps(page, indent=2).encode() + b"\n"


Troubles = Callable[[], dict[str, str | None]]


def site(metrics: Metrics, logins: Troubles, mail: Troubles, asked: Callable[[], None]) -> IProtocolFactory:
    """
    Return the web site of a node. Called after the reactor is installed: prometheus_client's resource imports it.

    :param logins: what readiness for logins depends on, each with what is wrong, or None.
    :param mail: the same for deliveries.
    :param asked: called for each answer about readiness.
    """
    from prometheus_client.twisted import MetricsResource  # noqa: PLC0415

    def readiness(troubles: Troubles) -> tuple[int, dict[str, object]]:
        asked()
        wrong = troubles()
        ready = not any(wrong.values())
        return 200 if ready else 503, {
            "ready": ready,
            "trouble": {part: text or "none" for part, text in wrong.items()},
        }

    root: Any = cast("Any", Resource)()
    root.putChild(b"healthz", _Page(lambda: (200, {"alive": True})))
    ready: Any = _Page(lambda: readiness(logins))
    ready.putChild(b"mail", _Page(lambda: readiness(mail)))
    root.putChild(b"readyz", ready)
    root.putChild(b"metrics", cast("Any", MetricsResource)(registry=metrics.registry))
    found: Any = cast("Any", Site)(root)
    found.displayTracebacks = False
    found.noisy = False
    return cast("IProtocolFactory", found)
