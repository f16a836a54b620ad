"""The drill's clients against servers that die, hang or answer nonsense: every end has its word."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from pretend import PretendedPlace

from node.drill import witness
from node.drill.history import History
from node.drill.load import Clients, how, reason
from node.drill.pop import Client, Refused
from node.drill.tally import Tally
from node.drill.witness import Session

BOX = "ada@example.com"


@contextlib.contextmanager
def server(*answers: bytes | None) -> Iterator[tuple[str, int]]:
    """Greets with the first answer, then answers each line with the next; then ends. None: it is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                for number, answer in enumerate(answers):
                    if number and not lines.readline():
                        return
                    if answer is None:
                        done.wait(60)
                        return
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ((b"",), "no connection"),
        ((b"+OK\r\n",), "no connection"),
        ((b"+OK\r\n", b"+OK\r\n", b"+O"), "no connection"),
        ((None,), "no answer"),
        ((b"+OK\r\n", b"+OK\r\n", None), "no answer"),
        ((b"-ERR [SYS/TEMP] too many connections\r\n",), "[SYS/TEMP]"),
        ((b"+OK\r\n", b"+OK\r\n", b"-ERR [IN-USE] taken\r\n"), "[IN-USE]"),
        ((b"+OK\r\n", b"+OK\r\n", b"-ERR no\r\n"), "-ERR"),
    ],
)
def test_a_login_that_fails_has_a_reason_and_is_no_session(answers, word):
    history = History()
    with server(*answers) as at, pytest.raises((Refused, OSError)) as failed:
        Session(at, BOX, "secret", history=history, node="n", seconds=0.3)
    assert reason(failed.value) == word
    assert history.sessions == []


LOGIN = (b"+OK\r\n", b"+OK\r\n", b"+OK\r\n")


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ((b"+OK\r\n1 uid-a\r\n",), "the connection ended"),
        ((None,), "no answer"),
        ((b"-ERR [SYS/TEMP] not now\r\n",), "-ERR [SYS/TEMP] not now"),
    ],
)
def test_a_session_that_breaks_says_how(answers, word):
    with server(*LOGIN, *answers) as at:
        session = Session(at, BOX, "secret", history=History(), node="n", seconds=0.3)
        with pytest.raises((Refused, OSError)) as broken:
            session.list()
        session.break_off()
    assert how(broken.value) == word


def test_a_quit_without_an_answer_asked_all_the_same():
    history = History()
    with server(*LOGIN, b"+OK\r\n1 uid-a\r\n.\r\n", b"+OK\r\n", b"") as at:
        session = Session(at, BOX, "secret", history=history, node="n")
        session.mark("uid-a")
        assert session.quit() == ""
    assert history.sessions[0].asked == {"uid-a"}
    assert history.sessions[0].removed == set()


def test_dots_are_unstuffed():
    with server(b"+OK\r\n", b"+OK\r\n..\r\n...x\r\n.\r\n") as at, Client(at) as client:
        assert client.block("RETR 1") == [b".", b"..x"]


@pytest.mark.parametrize(
    ("answers", "reply"),
    [
        ((b"421 not now\r\n",), "421"),
        ((b"220 x\r\n", b"250 x\r\n", b"451 x\r\n"), "451"),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"550 no\r\n"), "550"),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"451 DATA\r\n"), "451"),
    ],
)
def test_a_delivery_that_is_not_accepted_is_not_in_the_history(answers, reply):
    history = History()
    with server(*answers) as at:
        uid, said = witness.deliver(at, BOX, "token", history=history, seconds=5.0)
    assert uid is None
    assert said.startswith(reply)
    assert history.accepted == []


UP_TO_DATA = (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n")


def test_a_delivery_whose_connection_ends_before_the_250_was_not_accepted():
    history = History()
    with server(*UP_TO_DATA) as at, pytest.raises(OSError, match=r"closed|reset|pipe"):
        witness.deliver(at, BOX, "token", history=history)
    assert history.accepted == []


def test_a_delivery_whose_connection_ends_behind_the_250_was_accepted():
    history = History()
    with server(*UP_TO_DATA, b"250 2.0.0 delivered P3abc\r\n") as at:
        assert witness.deliver(at, BOX, "token", history=history)[0] == "P3abc"
    assert [(delivery.uid, delivery.token) for delivery in history.accepted] == [("P3abc", "token")]


def test_clients_count_what_became_of_a_delivery():
    place = PretendedPlace()
    place.start()
    try:
        place.add_mailboxes({BOX: "secret"})
        tally, history = Tally(), History()
        clients = Clients(pop3=place.pop3, lmtp=place.lmtp, passwords={BOX: "secret"}, history=history, tally=tally)
        for answer in ("250", "451", "550"):
            place.store.answers_to_mail = answer
            clients.deliver(BOX)
        at = place.lmtp
    finally:
        place.stop()
    Clients(pop3=at, lmtp=at, passwords={}, history=history, tally=tally).deliver(BOX)
    counts = tally.counts()
    assert (counts.accepted, counts.deferred, counts.refused_for_good) == (1, 2, 1)
    assert len(history.accepted) == 1
    assert "secret" not in repr(clients)
