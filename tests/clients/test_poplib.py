"""Python's own poplib: a whole conversation."""

import contextlib
import poplib

import pytest

pytestmark = pytest.mark.client


def test_a_whole_conversation(account):
    uids = account.deliver(*(b"Subject: %d\r\n\r\n.dotted\r\nend %d\r\n" % (number, number) for number in range(3)))
    client = poplib.POP3("127.0.0.1", account.pop3, timeout=20)
    assert client.getwelcome() == b"+OK POP3 service ready"
    capabilities = client.capa()
    assert {"TOP", "UIDL", "USER", "RESP-CODES", "PIPELINING"} <= set(capabilities)
    assert capabilities["SASL"] == ["PLAIN"]
    client.user(account.user)
    client.pass_(account.password)
    count, octets = client.stat()
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    assert (count, octets) == (3, sum(sizes))
    assert [line.split()[1].decode() for line in client.uidl()[1]] == uids
    _, lines, got = client.retr(2)
    assert lines[-2:] == [b".dotted", b"end 1"]
    assert got == sizes[1]
    assert client.top(3, 1)[1][-1] == b".dotted"
    client.dele(1)
    with pytest.raises(poplib.error_proto, match="no such message"):
        client.retr(1)
    client.rset()
    client.dele(3)
    client.noop()
    assert client.stat()[0] == 2
    client.quit()
    assert account.count() == 2


def test_a_second_session_is_told_that_the_mailbox_is_in_use(account):
    with contextlib.closing(poplib.POP3("127.0.0.1", account.pop3, timeout=20)) as first:
        first.user(account.user)
        first.pass_(account.password)
        port = account.lab.nodes[1].ports.pop3
        with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as second:
            second.user(account.user)
            with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
                second.pass_(account.password)
