"""Mail in: what LMTP and SMTP answer, and what RETR gives back, octet for octet; in memory and at live nodes."""

import pytest
from delivery_place import DOMAIN, OCTETS_MAX, Client, LivePlace, MemoryPlace, Place

from store.address import Address


@pytest.fixture(scope="module", params=["memory", pytest.param("live", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    kind = MemoryPlace if request.param == "memory" else LivePlace
    found = kind(tmp_path_factory.mktemp("delivery") / "place")
    yield found
    found.stop()


@pytest.fixture
def lmtp(place: Place) -> Client:
    with place.lmtp() as client:
        yield client


@pytest.fixture
def smtp(place: Place) -> Client:
    with place.smtp() as client:
        yield client


@pytest.fixture
def user(place: Place) -> str:
    return place.mailbox()


def test_a_message_comes_back_behind_its_trace(place: Place, lmtp: Client, user: str) -> None:
    lmtp.begin(user)
    reply = lmtp.data(b"Subject: a\r\n\r\nb\r\n")
    assert reply.startswith("250 2.0.0 delivered as ")
    assert reply.rpartition(" ")[2] == place.house.uids(user)[0]
    (message,) = place.received(user)
    lines = message.split(b"\r\n")
    assert lines[:2] == [b"Return-Path: <bob@example.net>", b"Delivered-To: " + user.encode()]
    assert lines[2] == b"Received: from mx ([127.0.0.1])"
    assert lines[3].startswith(b"\tby n")
    assert lines[3].endswith(b" with LMTP")
    assert lines[4].startswith(b"\tfor <" + user.encode() + b">; ")
    assert lines[5:] == [b"Subject: a", b"", b"b", b""]


def test_lmtp_has_a_reply_for_each_recipient_in_their_order(place: Place, lmtp: Client) -> None:
    first, doomed, last = place.mailbox(), place.mailbox(), place.mailbox()
    lmtp.begin(first, doomed, last)
    place.house.store.delete_mailbox(Address.parse(doomed))
    lmtp.send(b"a: b\r\n\r\n.\r\nNOOP\r\n")
    assert [lmtp.reply()[:9] for _ in range(4)] == ["250 2.0.0", "550 5.1.1", "250 2.0.0", "250 OK"]
    assert place.content(first) == place.content(last) == b"a: b\r\n\r\n"


def test_smtp_has_one_reply_and_the_better_recipient_has_the_mail(place: Place, smtp: Client) -> None:
    good, doomed = place.mailbox(), place.mailbox()
    smtp.begin(good, doomed, hello="EHLO mx")
    place.house.store.delete_mailbox(Address.parse(doomed))
    smtp.send(b"a: b\r\n\r\n.\r\nNOOP\r\n")
    assert [smtp.reply()[:9] for _ in range(2)] == ["550 5.1.1", "250 OK"]
    assert place.content(good) == b"a: b\r\n\r\n"
    assert place.received(good)[0].split(b"\r\n")[3].endswith(b" with ESMTP")


def test_an_alias_leads_to_the_mailbox(place: Place, lmtp: Client, user: str) -> None:
    alias = user.replace("user", "alias")
    place.house.alias(alias, user)
    lmtp.begin(alias)
    assert lmtp.data(b"x\r\n")[:3] == "250"
    assert place.received(user)[0].split(b"\r\n")[1] == b"Delivered-To: " + alias.encode()


def test_a_bounce_has_a_null_sender(place: Place, lmtp: Client, user: str) -> None:
    lmtp.begin(user, sender="")
    assert lmtp.data(b"a: b\r\n\r\n")[:3] == "250"
    assert place.received(user)[0].startswith(b"Return-Path: <>\r\n")


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        (f"nobody@{DOMAIN}", "550 5.1.1"),
        ("ada@unknown.example", "550 5.1.1"),
        ("ada", "550 5.1.1"),
        (f"../../etc@{DOMAIN}", "550 5.1.1"),
        (f'"a b"@{DOMAIN}', "550 5.1.1"),
        (f"a\udcffb@{DOMAIN}", "550 5.1.1"),
        ("a@b@c", "553 5.1.3"),
        (f"..@{DOMAIN}", "550 5.1.1"),
        (f"@{DOMAIN}", "553 5.1.3"),
        ("", "550 5.1.1"),
    ],
)
def test_who_is_not_here_is_refused_for_good(lmtp: Client, recipient: str, reply: str) -> None:
    lmtp.say("LHLO mx")
    lmtp.say("MAIL FROM:<bob@example.net>")
    assert lmtp.say(f"RCPT TO:<{recipient}>").startswith(reply)
    assert lmtp.say("DATA").startswith("503 5.5.1")


@pytest.mark.invariant("I6")
def test_a_locked_or_claimed_mailbox_receives_all_the_same(place: Place, lmtp: Client, user: str) -> None:
    place.house.lock(user, locked=True)
    lmtp.begin(user)
    assert lmtp.data(b"a: b\r\n\r\n")[:3] == "250"
    place.house.lock(user, locked=False)
    assert place.content(user) == b"a: b\r\n\r\n"


def test_the_size_limit_announced(lmtp: Client) -> None:
    assert f"250-SIZE {OCTETS_MAX}" in lmtp.say("LHLO mx").splitlines()
    assert lmtp.say(f"MAIL FROM:<bob@example.net> SIZE={OCTETS_MAX + 1}")[:3] == "552"
    assert lmtp.say(f"MAIL FROM:<bob@example.net> SIZE={OCTETS_MAX}")[:3] == "250"


def test_the_size_limit_found_out(place: Place, lmtp: Client, user: str) -> None:
    line = b"x" * 998 + b"\r\n"
    lmtp.begin(user)
    assert lmtp.data(line * (OCTETS_MAX // 1000) + b"\r\n").startswith("552 5.3.4")
    assert place.house.uids(user) == []
    lmtp.begin(user)
    assert lmtp.data(line * (OCTETS_MAX // 1000))[:3] == "250"
    assert place.content(user) == line * (OCTETS_MAX // 1000)


def test_dots_that_stuffing_added_are_not_of_the_size(place: Place, lmtp: Client, user: str) -> None:
    lines = b"." + b"x" * 997 + b"\r\n"
    lmtp.begin(user)
    assert lmtp.data((b"." + lines) * (OCTETS_MAX // 1000))[:3] == "250"
    assert place.content(user) == lines * (OCTETS_MAX // 1000)


def test_eight_bits_and_addresses_beyond_ascii(place: Place, lmtp: Client) -> None:
    user = f"üser{place.mailbox()}"
    place.house.mailbox(user, "lovelace")
    body = "Subject: Grüße\r\n\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
    lmtp.begin(user, sender="bøb@example.net", more=" BODY=8BITMIME SMTPUTF8")
    assert lmtp.data(body)[:3] == "250"
    (message,) = place.received(user)
    assert message.startswith(f"Return-Path: <bøb@example.net>\r\nDelivered-To: {user}\r\n".encode())
    assert b" with UTF8LMTP\r\n" in message
    assert message.endswith(b"\r\n" + body)


def test_helo_is_not_lmtp_and_lhlo_is_not_smtp(lmtp: Client, smtp: Client) -> None:
    assert lmtp.greeting.startswith("220 ")
    assert lmtp.say("HELO mx").startswith("500 5.5.1")
    assert lmtp.say("EHLO mx").startswith("500 5.5.1")
    assert lmtp.say("MAIL FROM:<>")[:3] == "503"
    assert smtp.say("LHLO mx")[:3] == "500"
    assert smtp.say("HELO mx")[:3] == "250"


def test_what_is_offered(lmtp: Client, smtp: Client) -> None:
    offers = {"8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", f"SIZE {OCTETS_MAX}"}
    assert {line[4:] for line in lmtp.say("LHLO mx").splitlines()[1:]} == offers
    assert {line[4:] for line in smtp.say("EHLO mx").splitlines()[1:]} == offers


def test_commands_out_of_their_order_and_with_wrong_arguments(lmtp: Client, user: str) -> None:
    assert lmtp.say("DATA")[:3] == "503"
    assert lmtp.say(f"RCPT TO:<{user}>")[:3] == "503"
    assert lmtp.say("LHLO")[:3] == "501"
    lmtp.say("LHLO mx")
    assert lmtp.say(f"RCPT TO:<{user}>")[:3] == "503"
    assert lmtp.say("MAIL bob")[:3] == "501"
    lmtp.say("MAIL FROM:<>")
    assert lmtp.say("MAIL FROM:<>")[:3] == "503"
    lmtp.say(f"RCPT TO:<{user}>")
    assert lmtp.say("DATA now").startswith("501 5.5.4")
    assert lmtp.say("RSET")[:3] == "250"
    assert lmtp.say("DATA")[:3] == "503"
    assert lmtp.say("NOOP " + "x" * 600)[:3] == "500"
    assert lmtp.say("x" * 100_000)[:3] == "500"
    assert lmtp.say("FROBNICATE")[:3] == "500"
    assert lmtp.say("QUIT")[:3] == "221"
    assert lmtp.reply() == ""


def test_a_whole_conversation_in_one_write(place: Place, lmtp: Client, user: str) -> None:
    lines = ["LHLO mx", "MAIL FROM:<a@example.net>", f"RCPT TO:<{user}>", f"RCPT TO:<no@{DOMAIN}>", "DATA", "1", "."]
    more = ["MAIL FROM:<>", f"RCPT TO:<{user}>", "DATA", "..2", ".", "QUIT"]
    lmtp.send("\r\n".join([*lines, *more, ""]).encode())
    codes = [lmtp.reply()[:3] for _ in range(11)]
    assert codes == ["250", "250", "250", "550", "354", "250", "250", "250", "354", "250", "221"]
    assert place.contents(user) == [b"1\r\n", b".2\r\n"]
