"""The history checker itself: histories that keep every promise, and one for each promise that is broken."""

import pytest

from node.drill.history import History, Seen

BOX = "ada@example.com"


def seen(node="n1", at=10.0, until=20.0, **fields) -> Seen:
    return Seen(
        mailbox=BOX, node=node, asked_at=at - 0.5, opened_at=at, quit_at=until, answered_at=until + 0.5, **fields
    )


def history(*sessions: Seen, accepted=(), readable=None) -> History:
    made = History()
    for uid, at in accepted:
        made.note_accepted(BOX, uid, f"token {uid}", at)
    for session in sessions:
        made.note_session(session)
    made.note_readable(BOX, {uid: f"token {uid}" for uid in readable or ()})
    return made


def test_a_history_that_keeps_every_promise_is_accepted():
    first = seen(listed=("a", "b"), marked=["a"], answer="+OK bye", fetched={"a": "token a"})
    second = seen(
        "n2", 30, 40, listed=("b", "c"), marked=["b"], answer="-ERR [SYS/TEMP] session expired, nothing was removed"
    )
    third = seen("n3", 50, 60, listed=("b", "c"), marked=["c"], answer=None)
    good = history(first, second, third, accepted=[("a", 1), ("b", 2), ("c", 25)], readable="b")
    assert good.violations() == []


def test_a_session_without_quit_may_overlap_another():
    lost = seen(listed=("a",), marked=["a"], until=float("inf"))
    taken_over = seen("n2", 12, 15, listed=("a",), marked=["a"], answer="+OK bye")
    assert history(lost, taken_over, accepted=[("a", 1)]).violations() == []


def test_a_mailbox_that_nobody_read_proves_nothing():
    unread = history()
    unread.note_accepted("grace@example.com", "a", "token a", 1)
    assert unread.violations() == ["grace@example.com: it received mail and nobody read it at the end"]


def test_what_was_half_removed_is_what_was_asked():
    half = seen(listed=("a", "b"), marked=["a", "b"], answer="-ERR session expired, only some of the marked messages")
    assert history(half, accepted=[("a", 1), ("b", 2)], readable="b").violations() == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        pytest.param(history(accepted=[("a", 1)]), "nobody asked", id="accepted and gone"),
        pytest.param(history(seen(listed=("a",))), "nobody asked", id="listed and gone"),
        pytest.param(
            history(seen(listed=("a",), marked=["a"], until=float("inf")), accepted=[("a", 1)]),
            "nobody asked",
            id="gone after a session that marked and broke off without QUIT",
        ),
        pytest.param(
            history(seen(listed=()), accepted=[("a", 1)], readable="a"), "did not list", id="accepted and not listed"
        ),
        pytest.param(
            history(seen(listed=("a",), marked=["a"], answer="+OK bye"), readable="a"), "readable at the end", id="back"
        ),
        pytest.param(
            history(
                seen(listed=("a",), marked=["a"], answer="+OK bye"),
                seen("n2", 30, 40, listed=("a",), marked=["a"], answer="+OK bye"),
            ),
            "listed at n2 later",
            id="back for a while",
        ),
        pytest.param(
            history(seen(listed=("a",), marked=["a"], answer="-ERR session expired, nothing was removed")),
            "said that nothing",
            id="told that nothing was removed",
        ),
        pytest.param(
            history(seen(listed=("a",), marked=["a"], answer="-ERR [SYS/TEMP] mailbox claims unavailable (ref 1)")),
            "said that nothing",
            id="removed while nobody knew whose claim it is",
        ),
        pytest.param(
            history(
                seen("n1", 10, 20, listed=("a", "b"), marked=["a"], answer="+OK bye"),
                seen("n2", 15, 30, listed=("a", "b"), marked=["b"], answer="+OK bye"),
            ),
            "held it at one time",
            id="two holders",
        ),
        pytest.param(history(seen(listed=("a", "a")), readable="a"), "a uid twice", id="listed twice"),
        pytest.param(
            history(seen(listed=("a",), fetched={"a": "something else"}), readable="a"), "the uid a is", id="changed"
        ),
        pytest.param(
            history(seen(listed=("a", "b"), fetched={"b": "token a"}), readable="a"), "the message token a", id="copied"
        ),
    ],
)
def test_a_broken_promise_is_told(broken: History, sentence: str):
    assert any(sentence in violation for violation in broken.violations()), broken.violations()
