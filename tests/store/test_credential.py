"""Credentials: yes, no, and "could not tell"; and nothing of them in print."""

import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support import GUID

from store import credential
from store.credential import NOBODY, NONCE_OCTETS, Credential, seal, unseal
from store.errors import Unavailable
from store.identity import derived_key

STORE = "4f6f9a5e-0d9c-4b53-8d59-a5f6d2f3a111"
KEY = derived_key(GUID, STORE, "credentials")


@pytest.fixture(scope="module")
def lovelace():
    return Credential.of("lovelace")


def test_the_right_password_is_admitted_and_no_other(lovelace):
    assert lovelace.admits("lovelace")
    for wrong in ("Lovelace", "lovelace ", "", "lovelac", "l\udcffvelace"):
        assert not lovelace.admits(wrong)


@pytest.mark.parametrize("password", ["", "\u00fcber\u2603", "\udcff raw octets", "x" * 1024])
def test_a_password_may_have_any_characters(password):
    assert Credential.of(password).admits(password)


def test_one_password_twice_makes_two_credentials(lovelace):
    assert Credential.of("lovelace") != lovelace


def test_nobody_has_a_password_that_anyone_can_know():
    assert not NOBODY.admits("")
    assert NOBODY.iterations == credential.ITERATIONS  # a refusal takes as long as an acceptance


def test_what_was_sealed_is_unsealed_with_the_same_key_and_store(lovelace):
    assert unseal(seal(lovelace, KEY, STORE), KEY, STORE) == lovelace
    assert seal(lovelace, KEY, STORE) != seal(lovelace, KEY, STORE)


def test_a_credential_of_another_store_or_guid_cannot_be_told(lovelace):
    sealed = seal(lovelace, KEY, STORE)
    for key, store in ((KEY, "another store"), (derived_key(GUID, STORE, "other"), STORE)):
        with pytest.raises(Unavailable, match="does not open"):
            unseal(sealed, key, store)


def test_no_bit_of_a_sealed_credential_can_be_changed(lovelace):
    sealed = seal(lovelace, KEY, STORE)
    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Unavailable):
            unseal(damaged, KEY, STORE)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 11, 12, 13, 28, 40])
def test_a_cut_off_credential_cannot_be_told(lovelace, length):
    with pytest.raises(Unavailable):
        unseal(seal(lovelace, KEY, STORE)[:length], KEY, STORE)


@pytest.mark.parametrize("plain", [b"[]", b"{}", b"null", b'{"salt": 1}', b"\xff", b'{"salt": "zz"}'])
def test_a_sealed_file_that_says_something_else_cannot_be_told(plain):
    nonce = bytes(NONCE_OCTETS)
    with pytest.raises(Unavailable):
        unseal(nonce + AESGCM(KEY).encrypt(nonce, plain, STORE.encode()), KEY, STORE)


@pytest.mark.invariant("I10")
def test_neither_print_nor_file_nor_failure_shows_anything(lovelace):
    assert repr(lovelace) == str(lovelace) == "Credential(<sealed>)"
    sealed = seal(lovelace, KEY, STORE)
    for secret in (lovelace.salt, lovelace.stored_key, lovelace.server_key, b"lovelace"):
        assert secret not in sealed
        assert secret.hex().encode() not in sealed
    with pytest.raises(Unavailable) as failure:
        unseal(sealed, bytes(32), STORE)
    for text in (failure.value.detail, failure.value.public, repr(failure.value)):
        assert lovelace.stored_key.hex() not in text
        assert KEY.hex() not in text


def test_the_file_holds_scram_keys_and_no_password(lovelace):
    sealed = seal(lovelace, KEY, STORE)
    plain = json.loads(AESGCM(KEY).decrypt(sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:], STORE.encode()))
    assert set(plain) == {"salt", "iterations", "stored_key", "server_key"}
