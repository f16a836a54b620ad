"""The configuration: the example loads, and every mistake is told with its line (bad_configs/*.yaml and .expected)."""

from pathlib import Path

import pytest

from node import config
from node.config import ConfigError, address, load, parse, path_of

HERE = Path(__file__).parent
EXAMPLE = HERE.parent.parent / "deploy" / "node.yaml"
BAD = sorted((HERE / "bad_configs").glob("*.yaml"))
SMALLEST = """\
guid: 5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b
mail_store: /srv/mailroot
redis: redis://127.0.0.1:6379/0
lmtp:
  listen: ["127.0.0.1:24"]
"""


@pytest.mark.parametrize("path", BAD, ids=[path.stem for path in BAD])
def test_a_bad_configuration_is_refused_with_every_mistake(path: Path) -> None:
    """The expectation has ``LINE: mistake`` or `` mistake`` for each mistake, as it follows the file's name."""
    with pytest.raises(ConfigError) as refused:
        load(str(path))
    assert str(refused.value).replace(f"{path}:", "") + "\n" == path.with_suffix(".expected").read_text()


def test_each_bad_configuration_has_its_expectation() -> None:
    assert len(BAD) >= 50
    assert {path.stem for path in BAD} == {path.stem for path in (HERE / "bad_configs").glob("*.expected")}


def test_the_example_loads_and_shows_every_key() -> None:
    settings = load(str(EXAMPLE))
    assert settings.node == "node1"
    assert settings.pop3_listen == (("0.0.0.0", 110),)
    assert settings.octets_max == 50_000_000
    assert settings.plain_without_tls is True
    text = EXAMPLE.read_text()
    assert [key for key in config.KEYS if f"{key.rpartition('.')[2]}:" not in text] == []


def test_defaults() -> None:
    settings = parse(SMALLEST)
    assert (settings.workers, settings.pop3_listen, settings.http_listen) == (1, (), ())
    assert settings.greeting == "POP3 service ready"
    assert (settings.method, settings.plain_without_tls) == ("encrypted_file", False)
    assert settings.lmtp_listen == (("127.0.0.1", 24),)
    assert settings.node


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("workers: 64", "workers", 64),
        ("delivery: {octets_max: 1024}", "octets_max", 1024),
        ("pop3: {greeting: " + "x" * 259 + "}", "greeting", "x" * 259),
        ('smtp: {listen: ["[::1]:25", "0.0.0.0:26"]}', "smtp_listen", (("::1", 25), ("0.0.0.0", 26))),
        ("node: " + "n" * 63, "node", "n" * 63),
    ],
)
def test_the_last_value_that_is_allowed(line: str, field: str, value: object) -> None:
    assert getattr(parse(f"{SMALLEST}{line}\n"), field) == value


@pytest.mark.parametrize(
    "url", ["rediss://u:p@h:6380/1", "unix:///run/redis.sock", "redis://[::1]:6379/0", "redis://h"]
)
def test_ledger_urls(url: str) -> None:
    assert parse(SMALLEST.replace("redis://127.0.0.1:6379/0", f'"{url}"')).redis == url


def test_the_guid_from_a_mounted_secret(tmp_path: Path) -> None:
    (tmp_path / "guid").write_text("5F1C2F5E8A3A4C529D3E0B3F6A1D2C4B\n")
    found = parse(SMALLEST.replace("guid: 5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b", f"guid_file: {tmp_path}/guid"))
    assert str(found.guid) == "5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b"


@pytest.mark.invariant("I10")
def test_neither_a_mistake_nor_the_settings_show_a_secret() -> None:
    settings = parse(SMALLEST.replace("redis://", "redis://user:hunter2@"))
    assert "hunter2" not in repr(settings)
    assert "5f1c2f5e" not in repr(settings)
    with pytest.raises(ConfigError) as refused:
        parse("guid: 5f1c2f5e-secret\nredis: redis://user:hunter2@127.0.0.1:port\n")
    assert "hunter2" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config FILE or MAILROOT_CONFIG"):
        load(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(tmp_path / "binary.yaml"))


def test_where_the_configuration_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILROOT_CONFIG", raising=False)
    assert path_of(None) == "/etc/mailroot/node.yaml"
    monkeypatch.setenv("MAILROOT_CONFIG", "/a.yaml")
    assert path_of(None) == "/a.yaml"
    assert path_of("/b.yaml") == "/b.yaml"


@pytest.mark.parametrize("text", ["", ":", "host", "host:", ":1", "h:0", "h:-1", "h:65536", "h:1x", "h:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        address(text)
