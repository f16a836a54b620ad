"""The contract of the leases: one renewal keeps all claims of a node, and a ledger may lose its memory."""

import pytest
from support import wait_until

from contract.conftest import Node
from store import claim
from store.claim import ClaimRequest

ADA, BOB = "example.com/ada", "example.com/bob"
TTL_SECONDS = 0.3


@pytest.mark.invariant("I7")
def test_a_lease_that_is_not_renewed_lapses_and_its_claims_are_free(table, south, monkeypatch):
    monkeypatch.setattr(claim, "LEASE_TTL_SECONDS", TTL_SECONDS)
    dying = Node(table, "dying")
    dying.join()
    assert dying.take(ADA) == "ok"
    assert south.take(ADA).startswith("held ")
    wait_until(lambda: south.take(ADA) == "ok", or_fail="the mailbox of a lapsed lease never became free")
    assert dying.confirm(ADA) == "lapsed"
    assert dying.renew().state == "gone"


def test_a_renewed_lease_outlives_its_ttl(table, monkeypatch):
    monkeypatch.setattr(claim, "LEASE_TTL_SECONDS", TTL_SECONDS)
    brief, living = Node(table, "brief"), Node(table, "living")
    brief.join()
    living.join()
    living.take(ADA)
    wait_until(
        lambda: living.renew().state == "ok" and brief.confirm(BOB) == "lapsed", or_fail="the brief lease never lapsed"
    )
    assert living.confirm(ADA) == "ok"


def test_ending_a_lease_frees_all_of_its_claims_at_once(table, north, south):
    north.table.exchange(north.lease, [ClaimRequest("take", f"example.com/u{n}", n) for n in range(20)])
    assert table.end_lease(north.lease)
    assert {south.take(f"example.com/u{n}", n) for n in range(20)} == {"ok"}
    assert not table.end_lease(north.lease)
    assert north.take(BOB) == "lapsed"


def test_a_lapsed_lease_is_never_picked_up_by_renewing(north):
    north.table.end_lease(north.lease)
    assert [north.renew().state, north.renew().state] == ["gone", "gone"]
    assert north.take(ADA) == "lapsed"


def test_a_name_that_a_living_node_has_is_taken(table, north):
    double = Node(table, "north", life="2")
    assert double.join().state == "taken"
    assert double.take(ADA) == "lapsed"
    assert north.renew().state == "ok"
    assert north.join().state == "ok"  # its own repetition is no other node
    table.end_lease(north.lease)
    assert double.join().state == "ok"


def test_a_beat_tells_of_the_other_leases_and_the_epoch(north, south):
    beat = north.renew()
    assert beat.other_leases == (south.lease,)
    assert beat.epoch.startswith("first ")
    assert beat.epoch == south.join(epoch="second").epoch
    assert 0 <= beat.epoch_age_seconds < 60
    assert (beat.registrations_version, beat.broken) == (0, ())


# A ledger that lost its memory


@pytest.mark.invariant("I5")
def test_a_new_ledger_grants_nothing_until_the_holders_could_assert_theirs(table, monkeypatch):
    monkeypatch.setattr(claim, "GRACE_SECONDS", 0.3)
    node = Node(table, "north")
    node.join()
    assert node.take(ADA) == "grace"
    assert node.confirm(ADA) == "lost"
    wait_until(lambda: node.take(ADA) == "ok", or_fail="the grace of a new ledger never ended")


@pytest.mark.invariant("I5")
def test_a_holder_asserts_its_claims_in_time_and_keeps_them(table, north, south, memory_is_lost, monkeypatch):
    north.take(ADA, 7)
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    memory_is_lost()
    assert north.confirm(ADA, 7) == "lapsed"
    assert north.renew().state == "gone"  # the first to come gives the ledger its new epoch
    assert table.reassert(north.lease, [(ADA, 7), (BOB, 8)]) == []
    assert table.reassert(north.lease, [(ADA, 7), (BOB, 8)]) == []
    assert north.confirm(ADA, 7) == north.confirm(BOB, 8) == "ok"
    south.join()
    assert south.take(ADA) == "grace"
    monkeypatch.setattr(claim, "GRACE_SECONDS", 0)
    assert south.take(ADA).startswith(f"held {north.lease} 7 ")


def test_of_two_who_assert_one_claim_the_second_is_told_that_it_lost(table, north, south, memory_is_lost, monkeypatch):
    monkeypatch.setattr(claim, "GRACE_SECONDS", 60)
    memory_is_lost()
    north.renew()
    assert table.reassert(north.lease, [(ADA, 7)]) == []
    assert table.reassert(south.lease, [(ADA, 7), (BOB, 1)]) == [ADA]
    assert north.confirm(ADA, 7) == south.confirm(BOB) == "ok"


@pytest.mark.invariant("I5")
def test_after_the_grace_it_is_too_late_and_nothing_is_put_back(table, north, memory_is_lost):
    north.take(ADA)
    memory_is_lost()
    assert table.reassert(north.lease, [(ADA, 1)]) is None  # no epoch: nobody has joined yet
    north.renew()
    assert table.reassert(north.lease, [(ADA, 1)]) is None
    assert north.confirm(ADA) == "lapsed"
