"""The contract of the claims on a real ledger: who gets a mailbox, who keeps it, and how it becomes free."""

import pytest

from contract.conftest import Node
from store.claim import ClaimRequest

ADA, BOB = "example.com/ada", "example.com/bob"


def test_one_takes_the_claim_and_the_other_is_told_who_holds_it(north, south):
    assert north.take(ADA, 7) == "ok"
    held, lease, token, since = south.take(ADA).split(" ")
    assert (held, lease, token) == ("held", north.lease, "7")
    assert int(since) > 0
    assert south.take(BOB) == "ok"


def test_a_dropped_claim_is_free(north, south):
    north.take(ADA)
    assert north.drop(ADA) == "ok"
    assert south.take(ADA) == "ok"
    assert north.confirm(ADA) == "lost"


def test_two_sessions_of_one_node_exclude_each_other(north):
    assert north.take(ADA, 1) == "ok"
    assert north.take(ADA, 2).startswith("held ")


def test_a_repetition_is_harmless_because_the_network_may_swallow_the_answer(north, south):
    assert [north.take(ADA), north.take(ADA)] == ["ok", "ok"]
    assert [north.drop(ADA), north.drop(ADA)] == ["ok", "ok"]
    assert south.take(ADA) == "ok"
    assert north.drop(ADA) == "ok"  # the drop that was owed comes late and hurts nobody
    assert south.confirm(ADA) == "ok"


def test_a_token_is_compared_whole(north):
    assert north.take(ADA, 12) == "ok"
    assert north.confirm(ADA, 1) == "lost"
    assert north.drop(ADA, 1) == "ok"
    assert north.confirm(ADA, 12) == "ok"


def test_only_the_owner_can_drop(north, south):
    north.take(ADA)
    assert south.drop(ADA) == "ok"
    assert north.confirm(ADA) == "ok"


def test_many_steps_are_one_exchange_with_an_answer_each_in_order(north):
    answers = north.table.exchange(
        north.lease,
        [
            ClaimRequest("take", ADA, 1),
            ClaimRequest("take", ADA, 2),
            ClaimRequest("drop", ADA, 1),
            ClaimRequest("take", ADA, 2),
            ClaimRequest("confirm", ADA, 1),
        ],
    )
    assert [answer.split(" ")[0] for answer in answers] == ["ok", "held", "ok", "ok", "lost"]
    assert north.table.exchange(north.lease, []) == []


def test_a_node_that_never_joined_gets_nothing(table):
    stranger = Node(table, "stranger")
    assert (stranger.take(ADA), stranger.confirm(ADA), stranger.drop(ADA)) == ("lapsed", "lapsed", "ok")


# What an administrator sees and does


def test_an_administrator_sees_who_holds_what_and_since_when(table, north, south):
    north.take(ADA)
    south.take(BOB)
    first, second = table.claims()
    assert [(held.mailbox, held.node, held.lease) for held in (first, second)] == [
        (ADA, "north", north.lease),
        (BOB, "south", south.lease),
    ]
    assert first.age_seconds >= second.age_seconds >= 0
    table.end_lease(north.lease)
    assert [held.mailbox for held in table.claims()] == [BOB]


@pytest.mark.invariant("I5")
def test_a_broken_claim_is_free_and_its_holder_hears_of_it_once(table, north, south):
    north.take(ADA, 7)
    broken = table.break_claim(ADA)
    assert (broken.mailbox, broken.node) == (ADA, "north")
    assert north.confirm(ADA, 7) == "lost"
    assert south.take(ADA) == "ok"
    assert south.renew().broken == ()
    assert north.renew().broken == ((7, ADA),)
    assert north.renew().broken == ()
    assert south.confirm(ADA) == "ok"
    assert table.break_claim(BOB) is None


def test_word_of_a_broken_claim_is_not_kept_for_the_dead_or_for_who_dropped(table, north, south, administrator, keys):
    north.take(ADA, 1)
    south.take(BOB, 1)
    table.break_claim(ADA)
    table.break_claim(BOB)
    north.drop(ADA, 1)
    assert north.renew().broken == ()
    table.end_lease(south.lease)
    north.renew()
    assert administrator.hgetall(keys.broken) == {}


def test_nodes_are_listed_dead_ones_too_until_they_leave(table, north, south):
    table.end_lease(north.lease)
    assert [(node.node, node.alive, node.facts["port"]) for node in table.nodes()] == [
        ("north", False, 110),
        ("south", True, 110),
    ]
    Node(table, "north", life="2").join()
    table.end_lease(north.lease, "north")  # a late farewell of the former life takes nothing away
    assert [node.alive for node in table.nodes()] == [True, True]
    table.end_lease(south.lease, "south")
    assert [node.node for node in table.nodes()] == ["north"]
