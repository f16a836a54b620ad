"""
The configuration of a node: one YAML file, and every mistake in it reported at once, with its line.

Knows       the keys, their forms and defaults; deploy/node.yaml explains them to people. Reads no network, opens
            no port.
Fails with  ConfigError, whose text lists all mistakes.
"""

import os
import re
import socket
import uuid
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from attrs import field, frozen

from store import sentinels
from store.identity import METHODS

DEFAULT_PATH = "/etc/mailroot/node.yaml"
GREETING = "POP3 service ready"
GREETING_CHARACTERS_MAX = 259  # The seed, "Changing the Greeting Message".
WORKERS_MAX = 64
PORT_MAX = 65_535
OCTETS_MAX = 50_000_000  # Default of delivery.octets_max: 50 MB.

Address = tuple[str, int]
Networks = tuple[IPv4Network | IPv6Network, ...]


class ConfigError(Exception):
    """The configuration can't be used; the text says where and how to mend it."""


@frozen(kw_only=True)
class Config:
    """A node's settings, checked."""

    node: str
    guid: uuid.UUID = field(repr=False)
    mail_store: str
    redis: str = field(repr=False)
    workers: int
    trusted_proxies: Networks
    pop3_listen: tuple[Address, ...]
    pop3_reuse_port: bool
    greeting: str
    lmtp_listen: tuple[Address, ...]
    smtp_listen: tuple[Address, ...]
    http_listen: tuple[Address, ...]
    socketmap_listen: tuple[Address, ...]
    octets_max: int
    method: str
    plain_without_tls: bool


class _Wrong(Exception):
    """A value that a key can't have."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Wrong("needs a text")
    return value


def _node(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", text):
        raise _Wrong("needs a name of letters, digits, '-' and '.', at most 63 characters")
    return text


def _guid(value: object) -> uuid.UUID:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise _Wrong("needs a GUID like 5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b (make one with: uuidgen)") from None


def _guid_file(value: object) -> uuid.UUID:
    path = _text(value)
    try:
        return _guid(Path(path).read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise _Wrong(f"can't read {path}: {error}") from None
    except _Wrong:
        raise _Wrong(f"{path} does not hold a GUID") from None


def _directory(value: object) -> str:
    path = _text(value)
    if not os.path.isabs(path):
        raise _Wrong("needs an absolute path, where the share is mounted")
    return path


def _redis(value: object) -> str:
    text = _text(value)
    if text.startswith(sentinels.SCHEME):
        try:
            sentinels.SentinelUrl.read(text)
        except ValueError:
            raise _Wrong(
                f"needs one to {sentinels.SENTINELS_MAX} Sentinels and the name that they watch: {sentinels.EXAMPLE}"
            ) from None
        return text
    try:
        parts = urlsplit(text)
        known = parts.scheme == "unix" or (parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0)
    except ValueError:  # Brackets that do not close, or a port that is no number of a port.
        known = False
    if not known:
        raise _Wrong("needs a URL like redis://127.0.0.1:6379/0 (rediss:// for TLS, redis+sentinel:// for Sentinels)")
    return text


def _whole(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Wrong(f"needs a whole number from {low} to {high}")
        return value

    return check


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("needs true or false")
    return value


def _method(value: object) -> str:
    text = _text(value)
    if text not in METHODS:
        raise _Wrong(f"needs one of: {', '.join(METHODS)}")
    return text


def _greeting(value: object) -> str:
    text = _text(value)
    if len(text) > GREETING_CHARACTERS_MAX:
        raise _Wrong(f"has {len(text)} characters; {GREETING_CHARACTERS_MAX} are allowed")
    if not text.isascii() or not text.isprintable() or "<" in text or ">" in text:
        raise _Wrong("needs printable ASCII characters without < and >")
    return text


def address(text: str) -> Address:
    """Read ``host:port`` or ``[v6]:port``. :raises ValueError: it is neither."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or not 0 < int(port) <= PORT_MAX or not host:
        raise ValueError(text)
    return host, int(port)


def _listen(value: object) -> tuple[Address, ...]:
    if not isinstance(value, list):
        raise _Wrong('needs a list of addresses, such as ["127.0.0.1:1110"]')
    addresses = []
    for item in value:
        try:
            found = address(str(item))
            socket.getaddrinfo(*found, flags=socket.AI_NUMERICHOST)
        except (ValueError, socket.gaierror):
            raise _Wrong(
                f"{item!r} is no address to listen at; write 127.0.0.1:1110, 0.0.0.0:110 or [::]:110"
            ) from None
        addresses.append(found)
    return tuple(addresses)


def _networks(value: object) -> Networks:
    if not isinstance(value, list):
        raise _Wrong('needs a list of addresses and networks, such as ["10.0.0.5", "10.1.0.0/16", "fd00::/8"]')
    networks = []
    for item in value:
        try:
            # A text only: ip_network takes 5 for 0.0.0.5.
            networks.append(ip_network(_text(item)))
        except (ValueError, _Wrong):
            raise _Wrong(
                f"{item!r} is no address and no network; write 10.0.0.5, 10.1.0.0/16 (no bits set behind the prefix), "
                "2001:db8::5 or fd00::/8"
            ) from None
    return tuple(networks)


REQUIRED = object()

# Each key: the field of Config, how its value is checked, its default.
KEYS: dict[str, tuple[str, Callable[[Any], object], object]] = {
    "node": ("node", _node, socket.gethostname().partition(".")[0]),
    "guid": ("guid", _guid, REQUIRED),
    "guid_file": ("guid", _guid_file, REQUIRED),
    "mail_store": ("mail_store", _directory, REQUIRED),
    "redis": ("redis", _redis, REQUIRED),
    "workers": ("workers", _whole(1, WORKERS_MAX), 1),
    "trusted_proxies": ("trusted_proxies", _networks, ()),
    "pop3.listen": ("pop3_listen", _listen, ()),
    "pop3.reuse_port": ("pop3_reuse_port", _truth, False),
    "pop3.greeting": ("greeting", _greeting, GREETING),
    "lmtp.listen": ("lmtp_listen", _listen, ()),
    "smtp.listen": ("smtp_listen", _listen, ()),
    "http.listen": ("http_listen", _listen, ()),
    "socketmap.listen": ("socketmap_listen", _listen, ()),
    "delivery.octets_max": ("octets_max", _whole(1024, 2**31 - 1), OCTETS_MAX),
    "auth.method": ("method", _method, "encrypted_file"),
    "auth.plain_without_tls": ("plain_without_tls", _truth, False),
}
_SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}


def path_of(given: str | None) -> str:
    """Return the configuration's path: ``--config``, else ``MAILROOT_CONFIG``, else the default."""
    return given or os.environ.get("MAILROOT_CONFIG") or DEFAULT_PATH


def load(path: str) -> Config:
    """Read a configuration. :raises ConfigError: with every mistake and its line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}. Name the configuration with --config FILE or MAILROOT_CONFIG; "
            "deploy/node.yaml is an example"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    return parse(text, path)


def parse(text: str, path: str = "node.yaml") -> Config:
    """Read a configuration's text. :raises ConfigError: with every mistake and its line."""
    root, values = _compose(text, path)
    mistakes: list[tuple[int, str]] = []
    settings: dict[str, object] = {name: default for name, _, default in KEYS.values()}
    for key, line, value in _flat(root, values, mistakes):
        if key not in KEYS:
            mistakes.append((line, f"unknown key {key}{_nearest(key)}"))
            continue
        name, check, _ = KEYS[key]
        try:
            settings[name] = check(value)
        except _Wrong as wrong:
            mistakes.append((line, f"{key} {wrong}"))
            settings[name] = None
    for name, setting in settings.items():
        if setting is REQUIRED:
            keys = " or ".join(key for key, (field_name, _, _) in KEYS.items() if field_name == name)
            mistakes.append((0, f"{keys} is missing"))
    if "guid" in values and "guid_file" in values:
        mistakes.append((0, "guid and guid_file are both given; keep one"))
    if not mistakes and not any(settings[name] for name in ("pop3_listen", "lmtp_listen", "smtp_listen")):
        mistakes.append((0, "pop3.listen, lmtp.listen and smtp.listen are all empty: the node would serve nobody"))
    if mistakes:
        lines = (f"{path}:{line}: {mistake}" if line else f"{path}: {mistake}" for line, mistake in sorted(mistakes))
        raise ConfigError("\n".join(lines))
    return Config(**settings)  # type: ignore[arg-type]  # each was checked by its key's own function


class _Loader(yaml.SafeLoader):
    """Tells the line of a value that looks like a date or a number and is none, where PyYAML only fails."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 (PyYAML's own)
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):
            problem = "a value looks like a date or a number and is none; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _compose(text: str, path: str) -> tuple[yaml.Node, dict[object, object]]:
    """Return the text as nodes, which know their lines, and as values."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: not YAML: the character #x{error.character:04x} is not allowed") from None
    except RecursionError:
        raise ConfigError(f"{path}: not YAML that a person would write: brackets within brackets") from None
    if not isinstance(values, dict) or root is None:
        raise ConfigError(f"{path}:1: needs keys and values; deploy/node.yaml is an example")
    return root, values


def _flat(
    root: yaml.Node, values: dict[object, object], mistakes: list[tuple[int, str]]
) -> list[tuple[str, int, object]]:
    """Return (dotted key, line, value) for every key of the file."""
    found: list[tuple[str, int, object]] = []
    seen: set[str] = set()

    def add(key: str, line: int, value: object) -> None:
        key = key if key.isprintable() else repr(key)
        if key in seen:
            mistakes.append((line, f"{key} is given twice"))
        seen.add(key)
        found.append((key, line, value))

    for key_node, value_node in root.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        value = values.get(key)
        if key not in _SECTIONS:
            add(key, line, value)
        elif not isinstance(value, dict):
            mistakes.append((line, f"{key} needs keys below it, such as {next(k for k in KEYS if k.startswith(key))}"))
        else:
            for inner, _ in value_node.value:
                add(f"{key}.{inner.value}", inner.start_mark.line + 1, value.get(inner.value))
    return found


def _nearest(key: str) -> str:
    import difflib  # noqa: PLC0415 (only for a mistake)

    close = difflib.get_close_matches(key, KEYS, n=1)
    return f"; did you mean {close[0]}?" if close else ""
