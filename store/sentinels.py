"""
Which Redis is the ledger now: Sentinels are asked, and the newest answer counts.

    redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT,HOST:PORT/NAME[/DB]

Guarantees  a new connection goes to the primary of the latest fail-over that any of the Sentinels knows of. Finding it
            takes at most SENTINELS_MAX times 2 x SENTINEL_SECONDS.
Fails with  ValueError for a URL that cannot work; redis-py's own errors when asked.
Knows       redis-py's Sentinel client. User and password are the Redis's; Sentinels are asked without.
"""

import re
from typing import cast
from urllib.parse import unquote

import redis
from attrs import field, frozen
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

SCHEME = "redis+sentinel://"
EXAMPLE = f"{SCHEME}10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379/NAME/0"
SENTINEL_SECONDS = 0.5  # To connect to one and for its answer: a quarter of what the ledger itself is given.
SENTINELS_MAX = 5  # All silent cost 5 s, within the pool's limit of 8 s for one call. A URL need not name them all.
PORT_MAX = 65_535

_URL = re.compile(
    re.escape(SCHEME) + r"(?:(?P<user>[^:@/]*):(?P<password>[^@/]+)@)?(?P<hosts>[^@/?#]+)"
    r"/(?P<name>[A-Za-z0-9._-]+)(?:/(?P<db>\d{0,5}))?"
)
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})")


@frozen(kw_only=True)
class SentinelUrl:
    """A Sentinel URL, taken apart."""

    sentinels: tuple[tuple[str, int], ...]
    name: str
    db: int
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def read(cls, url: str) -> "SentinelUrl":
        """Take a URL apart. :raises ValueError: it is not of this form; its text says nothing of the URL."""
        parts = _URL.fullmatch(url)
        hosts = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")] if parts else []
        sentinels = tuple((host[1] or host[2], int(host[3])) for host in hosts if host)
        if parts is None or len(sentinels) != len(hosts) or not all(0 < port <= PORT_MAX for _, port in sentinels):
            raise ValueError("no Sentinel URL")
        if len(sentinels) > SENTINELS_MAX:
            raise ValueError("too many Sentinels")
        return cls(
            sentinels=sentinels,
            name=parts["name"],
            db=int(parts["db"] or 0),
            user=unquote(parts["user"]) if parts["user"] else None,
            password=unquote(parts["password"]) if parts["password"] else None,
        )


class NewestSentinel(Sentinel):
    """
    redis-py's client of several Sentinels, which believes the latest fail-over.

    redis-py takes the first answer. A Sentinel that is cut off from the others goes on naming the primary of before,
    which we may reach as well as its successor. The epoch of the configuration tells which of two is the newer.
    (redis-py also moves whoever answered to the front of its list in place: two threads at once may lose one for good.)
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the primary's host and port. :raises MasterNotFoundError: no Sentinel names one that lives."""
        found: list[dict[str, object]] = []
        silent: list[str] = []
        for sentinel in self.sentinels:
            try:
                state = cast("dict[str, dict[str, object]]", sentinel.sentinel_masters()).get(service_name)
            except (redis.exceptions.RedisError, OSError) as error:
                silent.append(f"{type(error).__name__}: {error}")
                continue
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                found.append(state)
        if not found:
            raise MasterNotFoundError(_nobody(service_name, silent, len(self.sentinels)))
        newest = max(found, key=lambda state: int(str(state["config-epoch"])))
        return str(newest["ip"]), int(str(newest["port"]))


def _nobody(name: str, silent: list[str], asked: int) -> str:
    said = f"{asked - len(silent)} of {asked} Sentinels answer, and none names a living primary of {name!r}"
    return f"{said}; {'; '.join(silent)}" if silent else said


def client(url: str, **settings: object) -> redis.Redis:
    """Return a client of the primary, which asks the Sentinels anew for every new connection. :raises ValueError: URL."""
    parts = SentinelUrl.read(url)
    asked = {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    sentinel = NewestSentinel(list(parts.sentinels), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    found: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        parts.name, db=parts.db, username=parts.user, password=parts.password, **settings
    )
    return found
