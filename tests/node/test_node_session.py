"""States and verbs: any line in any state gives one reply or one ask, and only what the table allows."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.lines import OVERLONG
from node.pop3.session import (
    AUTHORIZATION,
    FOLLOWING,
    REFUSALS_MAX,
    TRANSACTION,
    Fetch,
    Open,
    Refusal,
    Remove,
    Session,
)
from node.pop3.wire import COMMAND_OCTETS_MAX, REPLY_OCTETS_MAX, SASL_OCTETS_MAX, Reply
from store.message import Message, Snapshot

MESSAGES = tuple(Message(f"uid{n}", 10 * n, f"{n}.eml") for n in range(1, 6))
SNAPSHOT = Snapshot(MESSAGES, 150)
LEGAL = {
    AUTHORIZATION: {"CAPA", "USER", "PASS", "AUTH", "QUIT"},
    TRANSACTION: {"CAPA", "STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "NOOP", "RSET", "QUIT"},
}
VERBS = sorted(LEGAL[AUTHORIZATION] | LEGAL[TRANSACTION])

arguments = st.sampled_from(
    [
        b"",
        b" 1",
        b" 2",
        b" 5",
        b" 6",
        b" 0",
        b" -1",
        b" 99999999999",
        b" x",
        b" 1 0",
        b" 1 7",
        b" a b",
        b" PLAIN",
        b" PLAIN =",
    ]
)
lines = st.one_of(
    st.builds(lambda verb, argument: verb.encode() + argument, st.sampled_from(VERBS), arguments),
    st.sampled_from([b"*", b"", b"APOP x y", base64.b64encode(b"\0ada\0lovelace"), b"AUTH PLAIN"]),
    st.binary(max_size=20),
    st.just(OVERLONG),
)


def opened() -> Session:
    session = Session(plain_allowed=True)
    session.opened(SNAPSHOT)
    return session


def say(session: Session, line: str) -> Reply:
    step = session.receive(line.encode())
    assert isinstance(step, Reply)
    return step


def first(session: Session, line: str) -> str:
    return say(session, line).line.decode()


@settings(max_examples=300)
@given(st.lists(st.tuples(lines, st.sampled_from(["yes", "no", "AUTH"])), max_size=40))
def test_any_line_in_any_state_gives_one_reply_or_one_ask(walk: list[tuple[bytes, str]]) -> None:
    session = Session(plain_allowed=True)
    for line, answer in walk:
        step = session.receive(line)
        match step:
            case Open():
                assert session._state == AUTHORIZATION, "nobody logs in twice"
                step = session.opened(SNAPSHOT) if answer == "yes" else session.refused(Refusal(answer[:4], "no"))
            case Fetch(message, body_lines, following):
                assert session._state == TRANSACTION
                assert MESSAGES.index(message) not in session._marked
                assert body_lines is None or body_lines >= 0
                assert len(following) <= FOLLOWING
                if answer == "yes":
                    continue
                step = session.refused(Refusal("SYS/TEMP", "no"))
            case Remove(messages):
                assert session._state == TRANSACTION
                assert messages == tuple(MESSAGES[index] for index in sorted(session._marked))
                step = session.removed(0) if answer == "yes" else session.not_removed(Refusal("SYS/TEMP", "no"))
                assert step.ends
        assert isinstance(step, Reply)
        assert step.line.startswith((b"+OK", b"-ERR", b"+ "))
        assert step.line.endswith(b"\r\n")
        assert step.line.count(b"\n") == 1
        assert len(step.line) <= REPLY_OCTETS_MAX
        assert not step.body or step.body.endswith(b".\r\n")
        if step.ends:
            return


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_of_the_other_state_is_absent_and_changes_nothing(verb: str) -> None:
    for state, session in ((AUTHORIZATION, Session(plain_allowed=True)), (TRANSACTION, opened())):
        assert ((state, verb) in Session._VERBS) == (verb in LEGAL[state])
        if verb not in LEGAL[state]:
            assert first(session, f"{verb} 1") == "-ERR not in this state\r\n"
            assert (session._state, session.marked) == (state, 0)


def test_only_these_pairs_exist() -> None:
    assert set(Session._VERBS) == {(state, verb) for state, verbs in LEGAL.items() for verb in verbs}


def test_numbers_come_in_and_uids_go_out() -> None:
    session = opened()
    assert first(session, "LIST 2") == "+OK 2 20\r\n"
    assert first(session, "UIDL 5") == "+OK 5 uid5\r\n"
    assert session.receive(b"RETR 4") == Fetch(MESSAGES[3], None, MESSAGES[4:])
    assert session.receive(b"TOP 3 7") == Fetch(MESSAGES[2], 7)
    say(session, "DELE 2")
    say(session, "DELE 5")
    assert first(session, "STAT") == "+OK 3 80\r\n"
    assert say(session, "LIST").body == b"1 10\r\n3 30\r\n4 40\r\n.\r\n"
    assert say(session, "UIDL").body == b"1 uid1\r\n3 uid3\r\n4 uid4\r\n.\r\n"
    assert session.receive(b"QUIT") == Remove((MESSAGES[1], MESSAGES[4]))


@pytest.mark.invariant("I4")
def test_only_quit_asks_for_a_removal_and_only_of_what_is_marked() -> None:
    session = opened()
    say(session, "DELE 1")
    say(session, "RSET")
    say(session, "DELE 3")
    assert session.receive(b"QUIT") == Remove((MESSAGES[2],))


def test_the_end_of_a_removal() -> None:
    for left, expected in ((0, b"+OK bye\r\n"), (1, b"-ERR [SYS/TEMP] 1 of 2 marked messages were not removed\r\n")):
        session = opened()
        say(session, "DELE 1")
        say(session, "DELE 2")
        session.receive(b"QUIT")
        assert session.removed(left) == Reply(expected, b"", ends=True)
    assert session.not_removed(Refusal("SYS/TEMP", "nothing was removed")).ends


def test_junk_and_wrong_passwords_are_counted_together_and_end_the_connection() -> None:
    session = Session(plain_allowed=True)
    for number in range(REFUSALS_MAX - 1):
        step = session.refused(Refusal("AUTH", "no")) if number % 2 else session.receive(b"junk!")
        assert isinstance(step, Reply)
        assert not step.ends
    assert session.refused(Refusal("AUTH", "no")).ends


def test_a_mailbox_in_use_and_a_message_that_is_not_there_are_nobody_s_guess() -> None:
    session = opened()
    for _ in range(3 * REFUSALS_MAX):
        assert not session.refused(Refusal("IN-USE", "in use")).ends
        assert not say(session, "RETR 77").ends


def test_without_plain_passwords_nothing_asks_for_one() -> None:
    session = Session(plain_allowed=False)
    body = say(session, "CAPA").body
    assert b"USER" not in body
    assert b"SASL" not in body
    assert say(session, "AUTH").body == b".\r\n"
    for line in ("USER ada", "PASS lovelace", "AUTH PLAIN", "AUTH PLAIN AGEAYg=="):
        assert first(session, line).startswith("-ERR"), line
    assert session.login == ""


def test_only_a_line_of_an_exchange_may_be_long() -> None:
    session = Session(plain_allowed=True)
    assert session.line_octets_max == COMMAND_OCTETS_MAX
    say(session, "AUTH PLAIN")
    assert session.line_octets_max == SASL_OCTETS_MAX
    assert isinstance(session.receive(OVERLONG), Reply)
    assert session.line_octets_max == COMMAND_OCTETS_MAX


@pytest.mark.invariant("I10")
def test_a_password_is_not_in_what_a_session_shows() -> None:
    session = Session(plain_allowed=True)
    say(session, "USER ada")
    ask = session.receive(b"PASS lovelace")
    assert ask == Open("ada", "lovelace")
    assert "lovelace" not in repr(ask)
    assert "lovelace" not in repr(vars(session))
