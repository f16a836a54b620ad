"""Any text as a configuration: a Config or a ConfigError whose every line says where, never anything else."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from node import config
from node.config import KEYS, Config, ConfigError, parse
from node.lab import Lab

EXAMPLE = Path(__file__).parent.parent.parent / "deploy" / "node.yaml"
SECRET = "hunter2"
GOOD: dict[str, object] = {
    "guid": "5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b",
    "mail_store": "/srv/mailroot",
    "redis": f"redis://user:{SECRET}@127.0.0.1:6379/0",
    "lmtp": {"listen": ["127.0.0.1:24"]},
}
SECTIONS = sorted({key.partition(".")[0] for key in KEYS})
INNER = sorted({key.partition(".")[2] for key in KEYS if "." in key})
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=8),
        st.dates(),
        st.sampled_from([GOOD["guid"], GOOD["redis"], "/srv", "127.0.0.1:24", "[::1]:24", "encrypted_file", ["h:1"]]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(INNER), st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)
FILES = st.dictionaries(st.one_of(st.sampled_from(SECTIONS), st.text(max_size=5), st.integers()), VALUES, max_size=6)


def read(text: str) -> Config | None:
    try:
        return parse(text, "node.yaml")
    except ConfigError as error:
        for line in str(error).splitlines():
            assert re.match(r"node\.yaml(:\d+)?: \S", line), line
        return None


@settings(deadline=None)
@given(changes=FILES)
def test_any_values_give_a_config_or_its_mistakes(changes: dict[object, object]) -> None:
    found = read(yaml.safe_dump(GOOD | changes, allow_unicode=True))
    if found is not None:
        assert SECRET not in repr(found)
        assert str(found.guid) not in repr(found)


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(max_codepoint=0x2FF), max_size=60), at=st.integers(0, 400))
def test_any_text_in_the_example_gives_a_config_or_its_mistakes(text: str, at: int) -> None:
    whole = yaml.safe_dump(GOOD)
    read(whole[:at] + text + whole[at:])
    read(text)


@settings(deadline=None)
@given(wrong=st.sets(st.sampled_from(sorted(set(KEYS) - {"guid_file"})), min_size=1))
def test_every_wrong_value_is_told_at_its_own_line(wrong: set[str]) -> None:
    flat = {"node": "n1", "guid": GOOD["guid"], "mail_store": "/srv", "redis": "redis://h", "workers": 1}
    flat |= {"trusted_proxies": ["192.0.2.7", "fd00::/8"]}
    flat |= {"pop3.listen": ["127.0.0.1:110"], "pop3.reuse_port": False, "pop3.greeting": "hello"}
    flat |= {"lmtp.listen": [], "smtp.listen": [], "http.listen": [], "delivery.octets_max": 5000}
    flat |= {"auth.method": "encrypted_file", "auth.plain_without_tls": True, "socketmap.listen": []}
    assert set(flat) == set(KEYS) - {"guid_file"}
    lines: list[str] = []
    places: dict[str, int] = {}
    for key, value in flat.items():
        section, _, inner = key.rpartition(".")
        if section and f"{section}:" not in lines:
            lines.append(f"{section}:")
        # Flow style, which is one line for each value; a number with a fraction is wrong for every key.
        shown = "1.5" if key in wrong else yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
        lines.append(f"{'  ' if section else ''}{inner}: {shown}")
        places[key] = len(lines)
    with pytest.raises(ConfigError) as refused:
        parse("\n".join(lines))
    said = str(refused.value).splitlines()
    assert [line.split(" ")[:2] for line in said] == [
        [f"node.yaml:{places[key]}:", key] for key in sorted(wrong, key=places.__getitem__)
    ]


FORMS = ["2026-99-99", "2026-01-01 25:00:00", "2026-01-01 10:00:00 +99:99", "0x_", "0b_"]
FORMS += ["!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!python/name:os.system x", "*x"]


@pytest.mark.parametrize("value", FORMS)
@pytest.mark.parametrize("key", ["node", "guid", "redis"])
def test_a_value_that_yaml_itself_cannot_read_is_told_with_its_line(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^node\.yaml:2: not YAML: "):
        parse(f"mail_store: /srv\n{key}: {value}\n")


def test_a_file_of_nothing_but_brackets_is_told() -> None:
    with pytest.raises(ConfigError, match="brackets within brackets"):
        parse("[" * 1500)


def test_the_example_says_the_default_of_every_key_that_has_one() -> None:
    text = EXAMPLE.read_text()
    values = yaml.safe_load(text)
    for key in KEYS:
        section, _, inner = key.rpartition(".")
        if key != "guid_file":
            assert inner in (values[section] if section else values), key
    assert "# guid_file:" in text
    assert f"Default: {config.OCTETS_MAX}\n" in text
    assert f"Default: {config.GREETING}\n" in text


def test_what_the_lab_writes_is_understood(tmp_path: Path) -> None:
    lab = Lab(tmp_path, nodes=2)
    for node in lab.nodes:
        lab.configure(node, delivery={"octets_max": 4096}, workers=2)
        assert node.config_path.stat().st_mode & 0o777 == 0o600
        found = config.load(str(node.config_path))
        assert (found.node, found.octets_max, found.workers) == (node.name, 4096, 2)
        assert [port for _, port in found.pop3_listen] == [node.ports.pop3, lab.shared_port]
