"""Addresses: one normal form, the seed's prohibited characters, and the tricks that paths play."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.address import Address, directory_name, local_of_directory, normal_domain, normal_local
from store.errors import Refused

# Windows help cc772824, the table of the encrypted password file method; and what SMB cannot store.
SEEDS_TABLE = '@()/\\[]:;,"<>*=?|'

TRICKS = {
    "parent": "../bob",
    "parent alone": "..",
    "this": ".",
    "hidden": ".bob",
    "ends in a dot": "bob.",
    "two dots": "bo..b",
    "separator": "a/b",
    "Windows separator": "a\\b",
    "NUL": "bob\0",
    "newline": "bob\n",
    "tab": "bo\tb",
    "blank": "bo b",
    "no-break space": "bo\u00a0b",
    "like a directory": "P3_x",
    "like a directory, small": "p3_x",
    "stream": "bob:$DATA",
    "delete": "bob\x7f",
    "right to left": "bob\u202egpj",
    "zero width": "bo\u200bb",
    "lone surrogate": "bob\udcff",
    "Greek question mark, NFC ;": "bob\u037e",
    "empty": "",
    "65 characters": "b" * 65,
    "over 255 bytes": "\u4e00" * 64 + "b",
    "64 characters, over 255 bytes": "\U00020000" * 64,
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_with_the_reason(trick):
    with pytest.raises(Refused) as refused:
        normal_local(TRICKS[trick])
    assert refused.value.detail
    assert refused.value.public == "refused"


@pytest.mark.parametrize("character", SEEDS_TABLE)
def test_each_character_of_the_seeds_table_is_refused_by_name(character):
    with pytest.raises(Refused, match="prohibited"):
        normal_local(f"bo{character}b")


@pytest.mark.parametrize("character", "!#$%&'+-^_`{}~.0aZ\u00e9")
def test_other_characters_are_allowed(character):
    assert normal_local(f"bo{character}b") == f"bo{character.lower()}b"


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Bob", "bob"),
        ("cafe\u0301", "caf\u00e9"),
        ("CAFE\u0301", "caf\u00e9"),
        ("J\u030cosef", "\u01f0osef"),  # lower case composes where upper case has no composed form
        ("b" * 64, "b" * 64),
    ],
)
def test_names_that_look_alike_are_one_mailbox(written, normal):
    assert normal_local(written) == normal


@given(st.text(max_size=70))
def test_a_local_part_is_refused_or_has_one_form_that_is_safe_in_a_path(text):
    try:
        local = normal_local(text)
    except Refused:
        return
    assert normal_local(local) == local
    assert unicodedata.is_normalized("NFC", local)
    name = directory_name(local)
    assert len(name.encode()) <= 255
    assert not set(name) & set('/\0\\:*?"<>|')
    assert local_of_directory(name) == local
    assert local_of_directory(name.upper()) is not None


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Example.COM", "example.com"),
        (" example.com. ", "example.com"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("\uff45xample.com", "example.com"),
        ("a\u3002b", "a.b"),
    ],
)
def test_a_domain_has_one_form(written, normal):
    assert normal_domain(written) == normal


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "com", "a..b", ".example.com", "-a.com", "a-.com", "a_b.com", "../etc", "a/b.com", "a\0.com",
     "ex ample.com", "x" * 64 + ".com", ".".join(["x" * 63] * 4) + ".com", "\u2100.com", "\udcff.com", "[127.0.0.1]"],
)  # fmt: skip
def test_what_is_no_domain_is_refused(text):
    with pytest.raises(Refused):
        normal_domain(text)


@given(st.text(max_size=30) | st.text("aA-.\u00e4\u3002", max_size=8))
def test_a_domain_is_refused_or_has_one_form_that_is_safe_in_a_path(text):
    try:
        domain = normal_domain(text)
    except Refused:
        return
    assert normal_domain(domain) == domain
    assert domain.isascii()
    assert not domain.startswith(".")
    assert "/" not in domain
    assert "\0" not in domain


def test_an_address_is_read_as_people_write_it():
    address = Address.parse("Ada@Example.COM")
    assert (address.local, address.domain) == ("ada", "example.com")
    assert str(address) == "ada@example.com"
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["ada", "", "@", "ada@", "@example.com", "a@b@example.com", "ada@example"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(Refused):
        Address.parse(text)


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("P3_bob.mbx", "bob"),
        ("p3_Bob.MBX", "bob"),
        ("P3_.mbx", ""),
        ("bob", None),
        ("P3_bob", None),
        (".deleted-1-bob.mbx", None),
        ("P3_bob.mbx.old", None),
    ],
)
def test_a_directory_of_an_adopted_tree_says_whose_it_is(name, local):
    assert local_of_directory(name) == local
