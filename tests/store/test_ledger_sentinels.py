"""A Sentinel URL: how it is written, which Sentinel is believed, and that no password is ever printed."""

import copy

import pytest
import redis

from store import sentinels
from store.errors import LedgerUnavailable, Misconfigured
from store.ledger import Ledger, without_password
from store.sentinels import NewestSentinel, SentinelUrl

THREE = "10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379"


@pytest.mark.parametrize(
    ("url", "hosts", "name_and_db", "user", "password"),
    [
        ("redis+sentinel://a:1/mail", (("a", 1),), ("mail", 0), None, None),
        ("redis+sentinel://a:1,b.example:2/my-mail.1/", (("a", 1), ("b.example", 2)), ("my-mail.1", 0), None, None),
        ("redis+sentinel://[::1]:1,10.0.0.1:2/mail/15", (("::1", 1), ("10.0.0.1", 2)), ("mail", 15), None, None),
        ("redis+sentinel://ada:p%40%2F%23@a:1/mail/2", (("a", 1),), ("mail", 2), "ada", "p@/#"),
        ("redis+sentinel://:p:q@a:1/mail", (("a", 1),), ("mail", 0), None, "p:q"),
    ],
)
def test_a_url_is_taken_apart(url, hosts, name_and_db, user, password):
    parts = SentinelUrl.read(url)
    assert (parts.sentinels, (parts.name, parts.db)) == (hosts, name_and_db)
    assert (parts.user, parts.password) == (user, password)
    assert password is None or password not in repr(parts)


BAD_URLS = [
    "redis+sentinel://",
    "redis+sentinel://a:1",
    "redis+sentinel://a:1/",
    "redis+sentinel://a/mail",
    "redis+sentinel://a:0/mail",
    "redis+sentinel://a:65536/mail",
    "redis+sentinel://a:1,/mail",
    "redis+sentinel://a:1,b/mail",
    "redis+sentinel://a:1/mail/first",
    "redis+sentinel://a:1/ma il",
    "redis+sentinel://a:1/mail?password=s3cret",
    "redis+sentinel://ada@a:1/mail",
    "redis+sentinel://ada:s3cret/s3cret@a:1/mail",
    "redis+sentinel://ada:s3cret@s3cret@a:1/mail",
    "redis+sentinel://" + ",".join(f"a{number}:1" for number in range(6)) + "/mail",
]


@pytest.mark.invariant("I10")
@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_cannot_work_is_told_with_the_form_and_without_the_password(url):
    with pytest.raises(Misconfigured, match=r"redis\+sentinel://10\.0\.0\.1:26379,.*/NAME/0") as refused:
        Ledger(url)
    assert "s3cret" not in refused.value.detail


@pytest.mark.invariant("I10")
def test_a_url_is_printed_without_its_password():
    assert without_password(f"redis+sentinel://{THREE}/mail/0") == f"redis+sentinel://{THREE}/mail/0"
    shown = without_password(f"redis+sentinel://ada:s3cret@{THREE}/mail/0")
    assert shown == f"redis+sentinel://ada:***@{THREE}/mail/0"


@pytest.mark.invariant("I10")
def test_sentinels_that_are_down_are_unavailable_and_each_is_told():
    ledger = Ledger("redis+sentinel://ada:s3cret@127.0.0.1:1,127.0.0.1:2/mail/0")
    with pytest.raises(
        LedgerUnavailable, match=r"0 of 2 Sentinels answer, .*127\.0\.0\.1:1.*127\.0\.0\.1:2"
    ) as failure:
        ledger.milliseconds()
    assert "s3cret" not in failure.value.detail
    ledger.close()


def test_a_redis_in_the_place_of_a_sentinel_is_told(valkey):
    ledger = Ledger(f"redis+sentinel://127.0.0.1:{valkey.port}/mail")
    with pytest.raises(LedgerUnavailable, match=r"0 of 1 Sentinels answer, .*SENTINEL"):
        ledger.milliseconds()
    ledger.close()


GOOD = {
    "ip": "10.0.0.9",
    "port": 6379,
    "config-epoch": 3,
    "is_master": True,
    "is_sdown": False,
    "is_odown": False,
    "num-other-sentinels": 2,
}


class Saying:
    """A Sentinel that gives one answer."""

    def __init__(self, answer=None, **changes):
        self.answer = answer if answer is not None else {"mail": GOOD | changes}

    def sentinel_masters(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return copy.deepcopy(self.answer)


def asked(*answers):
    found = NewestSentinel([])
    found.sentinels = list(answers)
    return found


SILENT = Saying(redis.exceptions.TimeoutError("no answer"))


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_answers_the_latest_fail_over_counts(turn):
    """A Sentinel that is cut off from the others goes on naming the primary of before."""
    answers = [Saying(), Saying(**{"ip": "10.0.0.7", "config-epoch": 4}), SILENT]
    assert asked(*answers[::turn]).discover_master("mail") == ("10.0.0.7", 6379)


@pytest.mark.parametrize(
    "answer",
    [SILENT, Saying(is_sdown=True), Saying(is_odown=True), Saying({}), Saying({"other": GOOD})],
)
def test_who_names_no_living_primary_is_not_believed(answer):
    assert asked(answer, Saying()).discover_master("mail") == ("10.0.0.9", 6379)
    with pytest.raises(redis.sentinel.MasterNotFoundError, match="none names a living primary of 'mail'"):
        asked(answer, answer).discover_master("mail")


def test_the_sentinels_are_given_little_time_and_never_asked_twice():
    found = sentinels.client(
        f"redis+sentinel://ada:s3cret@{THREE}/mail/2", client_name="mailroot:n", socket_timeout=2.0
    )
    for sentinel in found.connection_pool.sentinel_manager.sentinels:
        settings = sentinel.connection_pool.connection_kwargs
        assert settings["socket_timeout"] == settings["socket_connect_timeout"] == sentinels.SENTINEL_SECONDS
        assert settings["retry"].get_retries() == 0
        assert settings.get("password") is None, "the password is the Redis's"
    settings = found.connection_pool.connection_kwargs
    assert (settings["db"], settings["username"], settings["client_name"]) == (2, "ada", "mailroot:n")
    found.close()
