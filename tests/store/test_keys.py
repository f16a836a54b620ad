"""Every key of a store has its hash tag; nothing else spells a key."""

from store.claim import lease_id, node_of
from store.keys import Keys, connection_name

NAMES = ("epoch", "leases", "nodes", "claims", "broken", "domains", "changes", "version")


def test_all_keys_of_a_store_are_on_one_shard_and_differ():
    keys = [getattr(Keys("abc"), name) for name in NAMES]
    assert keys == [f"mailroot:{{abc}}:{name}" for name in NAMES]
    assert not set(keys) & {getattr(Keys("other"), name) for name in NAMES}


def test_all_leases_of_a_process_have_connections_of_one_name():
    first, second = (lease_id("north", f"1f2e.{number}") for number in (1, 2))
    assert connection_name(first) == connection_name(second) == "mailroot:north~1f2e"
    assert connection_name(first) != connection_name(lease_id("north", "ffff.1"))


def test_a_lease_says_which_nodes_it_is_even_with_a_tilde_in_the_name():
    assert node_of(lease_id("north", "1f2e.1")) == "north"
    assert node_of(lease_id("no~rth", "1f2e.1")) == "no~rth"
