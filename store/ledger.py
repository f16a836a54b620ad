"""
The one Redis client: time-outs, scripts, and its errors in our words.

Guarantees  a call returns or fails within about SOCKET_SECONDS (and what asking Sentinels takes, where it connects);
            nothing is retried behind the caller's back, because every script is written so that the caller may
            repeat it. A Redis that takes no writes is left: the next call connects anew.
Fails with  LedgerUnavailable; Misconfigured for a URL that cannot work.
Knows       Redis (any server that speaks its protocol, Valkey too). Nothing of claims or domains.
"""

import re
from collections.abc import Callable, Iterable
from importlib.resources import files as package_files
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from store import sentinels
from store.errors import LedgerUnavailable, Misconfigured

# Up to the last @, because the URL may be wrong: a password with a bare / or @ in it must not show either.
_PASSWORD = re.compile(r"^((?:[\w+.-]*://)?+[^/?#@:]*):.*@")
_PASSWORD_ASKED = re.compile(r"(?i)([?&]password=)[^&]*")

# What a Redis says that is not the ledger (any more): demoted, or a primary that was cut off from its replicas. Before
# Redis 7 a script's error has other words around it.
_TAKES_NO_WRITES = re.compile(r"\b(READONLY|NOREPLICAS)\b|read only replica|previous master")

COPY_SECONDS = 1.0  # For a replica to have what must not be lost: within the socket's time-out.
SOCKET_SECONDS = 2.0  # A ledger on the same network answers in a millisecond; a lease lasts ten seconds.
CONNECT_SECONDS = 1.0

# What a Redis answer can be, once decoded.
Answer = str | int | None | list["Answer"]


def without_password(url: str) -> str:
    """Return a Redis URL that may be printed (I10)."""
    return _PASSWORD_ASKED.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


class Ledger:
    """A connection pool to one Redis. Blocking and thread-safe; connects when first asked."""

    def __init__(self, url: str, connection_name: str | None = None) -> None:
        self._url = without_password(url)
        with_sentinels = url.startswith(sentinels.SCHEME)
        connect: Callable[..., redis.Redis] = sentinels.client if with_sentinels else redis.Redis.from_url
        try:
            self._redis = connect(
                url,
                client_name=connection_name,
                decode_responses=True,
                socket_timeout=SOCKET_SECONDS,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            # The error's own text is not shown: it takes a password with a bare / in it for a port, and quotes it.
            like = sentinels.EXAMPLE if with_sentinels else "redis://127.0.0.1:6379/0"
            message = (
                f"redis: {self._url!r} is no Redis URL; write it like {like}, and in a password "
                "%2F for /, %40 for @, %23 for #"
            )
            raise Misconfigured(message) from error
        self._has_replicas = with_sentinels
        self._scripts: dict[str, str] = {}

    def run_script(
        self, name: str, keys: Iterable[str], arguments: Iterable[str | int], *, keep: bool = False
    ) -> Answer:
        """
        Run ``scripts/<name>.lua`` as one atomic step and return its answer.

        :param keep: with Sentinel, return only when a replica has it too: a fail-over must not lose it.
        """
        keys, arguments = list(keys), list(arguments)
        evaluate = self._evaluate_and_keep if keep and self._has_replicas else self._evaluate
        digest = self._scripts.get(name)
        if digest is not None:
            try:
                return evaluate(digest, keys, arguments)
            except redis.exceptions.NoScriptError:
                pass  # The ledger was restarted and has forgotten its scripts.
        text = (package_files("store") / "scripts" / f"{name}.lua").read_text()
        self._scripts[name] = cast("str", self._told(lambda: self._redis.script_load(text)))
        return evaluate(self._scripts[name], keys, arguments)

    def hash(self, key: str) -> dict[str, str]:
        """Return a whole hash."""
        flat = self._told(lambda: self._redis.hgetall(key))
        return cast("dict[str, str]", flat)

    def sorted_since(self, key: str, after: int) -> list[tuple[str, int]]:
        """Return the members of a sorted set with a score above ``after``, lowest first."""
        found = self._told(lambda: self._redis.zrangebyscore(key, f"({after}", "+inf", withscores=True))
        return [(member, int(score)) for member, score in cast("list[tuple[str, float]]", found)]

    def hash_values(self, key: str, fields: list[str]) -> list[str | None]:
        """Return some values of a hash."""
        return cast("list[str | None]", self._told(lambda: self._redis.hmget(key, fields))) if fields else []

    def number(self, key: str) -> int:
        """Return a counter's value, 0 where it does not exist."""
        return int(cast("str | None", self._told(lambda: self._redis.get(key))) or 0)

    def milliseconds(self) -> int:
        """Return the time on the ledger's clock, in ms since 1970."""
        seconds, microseconds = cast("tuple[int, int]", self._told(self._redis.time))
        return seconds * 1000 + microseconds // 1000

    def connection_names(self) -> set[str] | None:
        """Return the names of all connections of the ledger, or None where we may not ask."""
        try:
            clients = cast("list[dict[str, str]]", self._told(self._redis.client_list))
        except LedgerUnavailable as error:
            if isinstance(error.__cause__, redis.exceptions.ResponseError):
                return None
            raise
        return {client["name"] for client in clients}

    def close(self) -> None:
        """Close the connections: at this instant others can see that this process has left."""
        self._redis.close()

    def _evaluate(self, digest: str, keys: list[str], arguments: list[str | int]) -> Answer:
        return cast("Answer", self._told(lambda: self._redis.evalsha(digest, len(keys), *keys, *arguments)))

    def _evaluate_and_keep(self, digest: str, keys: list[str], arguments: list[str | int]) -> Answer:
        def both() -> list[object]:
            # In one go, because WAIT waits for what its own connection wrote.
            steps = self._redis.pipeline(transaction=False)
            steps.evalsha(digest, len(keys), *keys, *arguments)
            steps.wait(1, int(COPY_SECONDS * 1000))
            return steps.execute()

        answer, copies = cast("tuple[Answer, int]", self._told(both))
        if copies < 1:
            raise LedgerUnavailable(
                f"ledger {self._url}: done, but no replica has it yet and it may be lost; repeat it"
            )
        return answer

    def _told(self, call: Callable[[], object]) -> object:
        try:
            return call()
        except redis.exceptions.NoScriptError:
            raise
        except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            message = f"ledger {self._url} refuses us: {error}. Set user and password in redis: redis://USER:PASSWORD@…"
            raise LedgerUnavailable(message) from error
        except (redis.exceptions.RedisError, OSError) as error:
            if _TAKES_NO_WRITES.search(str(error)):
                self._redis.connection_pool.disconnect(inuse_connections=False)
                message = (
                    f"ledger {self._url} takes no writes ({error}). It is a replica, or a primary that sees none: "
                    "promote one, or mend the network between them"
                )
                raise LedgerUnavailable(message) from error
            message = (
                f"ledger {self._url} does not answer ({type(error).__name__}: {error}). Start it, or correct redis:"
            )
            raise LedgerUnavailable(message) from error
