"""The settings: reads and checks the Flask config keys that begin with `PRESENCE_`.

Rule: an app with a wrong setting does not start. The error says what to write instead.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

from .domain.errors import ConfigurationError
from .domain.history import HistoryRules, Retention
from .domain.origins import check_allowed
from .domain.text import is_sendable

PREFIX: Final = "PRESENCE_"
MEMORY: Final = "memory://"
MAX_KEPT_MESSAGES: Final = 10_000
MAX_KEPT_SECONDS: Final = 2_592_000
MIN_SECRET_LENGTH: Final = 16
_SHARDS: Final = "a mapping of labels to such URLs, like {'a': 'redis://host-a:6379/0', 'b': 'redis://host-b:6379/0'}"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked value of every setting. Sizes in bytes, times in seconds."""

    enabled: bool = True
    url_prefix: str = "/presence"
    subdomain: str | None = None
    host: str | None = None
    backend: str | Mapping[str, str] = field(default="memory://", repr=False)
    auth_required: bool = False
    token_in_query: bool = True
    allowed_origins: tuple[str, ...] = ()
    max_connections: int = 10000
    max_channels: int = 100
    max_members: int | None = 10000
    max_message_size: int = 65536
    max_user_info: int = 4096
    max_outbox: int = 1048576
    history: Mapping[str, Retention] = field(default_factory=dict)
    rate_limit: tuple[float, float] | None = (100, 200)
    ping_interval: float = 25
    ping_timeout: float = 10
    token_recheck: float = 60
    drain: float = 5
    grace: float = 10
    grace_abrupt: float = 0
    stats_public: bool = False
    redis_prefix: str = "fp"
    lease: float = 10
    isolated_workers: bool = False
    pusher_key: str | None = None
    pusher_secret: str | None = field(default=None, repr=False)
    pusher_app_id: str = "1"
    pusher_path: str = ""
    pusher_activity_timeout: int = 30
    pusher_client_events: tuple[float, float] | None = (10, 10)
    pusher_encryption_key: str | None = field(default=None, repr=False)
    pusher_webhooks: tuple[str, ...] = ()

    @property
    def in_memory(self) -> bool:
        """Whether each process keeps its state in memory."""
        return self.backend == MEMORY


class HistoryRule(TypedDict):
    """How many messages a channel keeps, and for how many seconds after the last one."""

    messages: int
    seconds: float


class SettingArguments(TypedDict, total=False):
    """The keyword arguments of `Presence`: every setting, with the types that `load_settings` accepts."""

    enabled: bool
    url_prefix: str
    subdomain: str | None
    host: str | None
    backend: str | Mapping[str, str]
    auth_required: bool
    token_in_query: bool
    allowed_origins: str | list[str] | tuple[str, ...] | set[str] | frozenset[str]
    max_connections: int
    max_channels: int
    max_members: int | None
    max_message_size: int
    max_user_info: int
    max_outbox: int
    history: Mapping[str, HistoryRule | tuple[int, float]]
    rate_limit: tuple[float, float] | None
    ping_interval: float
    ping_timeout: float
    token_recheck: float
    drain: float
    grace: float
    grace_abrupt: float
    stats_public: bool
    redis_prefix: str
    lease: float
    isolated_workers: bool
    pusher_key: str | None
    pusher_secret: str | None
    pusher_app_id: str
    pusher_path: str
    pusher_activity_timeout: int
    pusher_client_events: tuple[float, float] | None
    pusher_encryption_key: str | None
    pusher_webhooks: str | list[str] | tuple[str, ...]


def load_settings(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settings:
    """Read the settings from a Flask config. `defaults` have names in lower case, without the prefix.

    Raises `ConfigurationError` if a key is unknown, a value is wrong, or two values contradict each other.
    """
    given = {key.upper(): value for key, value in defaults.items()}
    given.update((key.removeprefix(PREFIX), config[key]) for key in config if key.startswith(PREFIX))
    known = {one.name.upper() for one in fields(Settings)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigurationError(
            f"unknown setting {', '.join(PREFIX + key for key in unknown)}; "
            f"the valid ones are {', '.join(PREFIX + key for key in sorted(known))}"
        )
    settings = Settings(**{key.lower(): _CHECKS[key.lower()](PREFIX + key, value) for key, value in given.items()})
    if settings.max_outbox < 2 * settings.max_message_size:
        raise ConfigurationError(
            f"PRESENCE_MAX_OUTBOX is {settings.max_outbox}; it must be at least twice PRESENCE_MAX_MESSAGE_SIZE"
            f" ({settings.max_message_size}), because otherwise a single message could close a connection"
        )
    _check_pusher(settings)
    return settings


def _check_pusher(settings: Settings) -> None:
    """Raise `ConfigurationError` if the Pusher dialect is only half configured."""
    if settings.pusher_key is not None:
        if settings.pusher_secret is None:
            raise ConfigurationError(
                "PRESENCE_PUSHER_KEY needs PRESENCE_PUSHER_SECRET: set it, for instance to what "
                "python -c 'import secrets; print(secrets.token_hex())' prints"
            )
        return
    for name in ("pusher_secret", "pusher_encryption_key", "pusher_webhooks"):
        if getattr(settings, name):
            raise ConfigurationError(f"{PREFIX}{name.upper()} needs PRESENCE_PUSHER_KEY: set both, or neither")


def _wrong(key: str, expected: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{key} must be {expected}, not {value!r}")


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "True or False", value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(key, "a whole number, 1 or more", value)
    return value


def _count_or_none(key: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise _wrong(key, "a whole number, 1 or more, or None for no limit", value)
    return value


def _seconds(key: str, value: Any) -> float:
    if not _is_number(value) or value <= 0:
        raise _wrong(key, "a number of seconds above 0", value)
    return float(value)


def _seconds_or_zero(key: str, value: Any) -> float:
    if not _is_number(value) or value < 0:
        raise _wrong(key, "a number of seconds, 0 or more", value)
    return float(value)


def _lease(key: str, value: Any) -> float:
    if not _is_number(value) or value < 1:
        raise _wrong(key, "a number of seconds, 1 or more", value)
    return float(value)


def _prefix(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _wrong(key, "1 to 32 letters, digits, '_', '.' or '-'", value)
    return value


def _backend(key: str, value: Any) -> str | dict[str, str]:
    """A URL, or URLs by label in alphabetical order. No error repeats the value, because it may have a password."""
    if isinstance(value, Mapping):
        return _shards(key, value)
    if not isinstance(value, str) or not value:
        kind = "an empty string" if value == "" else f"a {type(value).__name__}"
        raise ConfigurationError(
            f"{key} must be a URL like 'memory://' or 'redis://localhost:6379/0', or {_SHARDS}, not {kind}"
        )
    return _url(value)


def _shards(key: str, value: Mapping[Any, Any]) -> dict[str, str]:
    if not value:
        raise ConfigurationError(f"{key} is an empty mapping; it must be {_SHARDS}")
    if not all(isinstance(label, str) and _NAME.fullmatch(label) for label in value):
        raise ConfigurationError(
            f"{key} has a label that is not 1 to 32 letters, digits, '_', '.' or '-'; it must be {_SHARDS}"
        )
    for label, url in value.items():
        if not isinstance(url, str) or not url:
            raise ConfigurationError(f"{key}[{label!r}] must be a URL like 'redis://localhost:6379/0'")
    shards = {label: _url(value[label]) for label in sorted(value)}
    in_memory = [label for label, url in shards.items() if url.startswith("memory:")]
    if in_memory:
        raise ConfigurationError(
            f"{key}[{in_memory[0]!r}] is 'memory://', which no other process can reach: a shard must be a Redis, "
            "like 'redis://localhost:6379/0'"
        )
    return shards


def _url(value: str) -> str:
    """A URL with its scheme in lower case."""
    scheme, mark, rest = value.partition("://")
    scheme = scheme.lower()
    return MEMORY if scheme == "memory" and not rest else scheme + mark + rest


def _host(key: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[^\s/]+", value)):
        raise _wrong(key, "a host name or a part of one, like 'live' or '<tenant>', or None", value)
    return value


def _path(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or value.endswith("/") or "<" in value:
        raise _wrong(key, "a path like '/presence', with a slash at the start and none at the end", value)
    return value


def _rate(key: str, value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise _wrong(key, "(a number per second, burst), or None for no limit", value)
    rate, burst = value
    if not _is_number(rate) or not _is_number(burst) or rate <= 0 or burst < 1:
        raise _wrong(key, "(a number per second above 0, burst of 1 or more), or None for no limit", value)
    return float(rate), float(burst)


def _history(key: str, value: Any) -> dict[str, Retention]:
    expected = 'a mapping like {"room-*": {"messages": 100, "seconds": 3600}}'
    if not isinstance(value, Mapping):
        raise _wrong(key, expected, value)
    rules: dict[str, Retention] = {}
    for pattern, given in value.items():
        if isinstance(given, Mapping) and set(given) == {"messages", "seconds"}:
            messages, seconds = given["messages"], given["seconds"]
        elif isinstance(given, (tuple, list)) and len(given) == 2:
            messages, seconds = given
        else:
            raise _wrong(key, expected, value)
        what = f"{key}[{pattern!r}]"
        if not isinstance(messages, int) or isinstance(messages, bool) or not 1 <= messages <= MAX_KEPT_MESSAGES:
            raise _wrong(what, f"a number of messages from 1 to {MAX_KEPT_MESSAGES}, and seconds", given)
        if not _is_number(seconds) or not 1 <= seconds <= MAX_KEPT_SECONDS:
            raise _wrong(what, f"messages, and a number of seconds from 1 to {MAX_KEPT_SECONDS}", given)
        if not isinstance(pattern, str):
            raise _wrong(key, expected, value)
        if "<" in pattern or ">" in pattern:
            raise ConfigurationError(f"{what}: only guards may have converters; write '*' instead")
        rules[pattern] = Retention(messages, float(seconds))
    try:
        HistoryRules(rules)
    except ValueError as problem:
        raise ConfigurationError(f"{key}: {problem}") from None
    return rules


def _as_text(value: Any) -> Any:
    """A whole number as text, because `from_prefixed_env` reads digits as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _pusher_key(key: str, value: Any) -> str | None:
    value = _as_text(value)
    if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value)):
        raise _wrong(key, "1 to 64 letters, digits, '_' or '-', or None", value)
    text: str | None = value
    return text


def _pusher_secret(key: str, value: Any) -> str | None:
    """No error repeats the value."""
    value = _as_text(value)
    if value is not None and (not isinstance(value, str) or len(value) < MIN_SECRET_LENGTH):
        raise ConfigurationError(f"{key} must be a string of {MIN_SECRET_LENGTH} characters or more")
    if value is not None and not is_sendable(value):
        raise ConfigurationError(f"{key} must have no lone surrogates")
    return value


def _digits(key: str, value: Any) -> str:
    value = _as_text(value)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,32}", value):
        raise _wrong(key, "a string of digits, like '1'", value)
    return value


def _path_or_empty(key: str, value: Any) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", value):
        raise _wrong(key, "'', or a path like '/pusher', with a slash at the start and none at the end", value)
    return value


def _encryption_key(key: str, value: Any) -> str | None:
    """No error repeats the value."""
    if value is None:
        return None
    try:
        size = len(base64.b64decode(value, validate=True)) if isinstance(value, str) else 0
    except ValueError:
        size = 0
    if size != 32:
        raise ConfigurationError(
            f"{key} must be 32 bytes in base64, for instance what "
            "python -c 'import base64, secrets; print(base64.b64encode(secrets.token_bytes(32)).decode())' prints"
        )
    text: str = value
    return text


def _urls(key: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, (tuple, list)) or not all(isinstance(url, str) for url in values):
        raise _wrong(key, "a list of URLs like 'https://example.com/pusher'", value)
    for url in values:
        if not _is_url(url):
            raise ConfigurationError(
                f"{key} must be a list of URLs like 'https://example.com/pusher', in ASCII, without a user, a password "
                "or a '#'"
            )
    return tuple(values)


def _is_url(text: str) -> bool:
    """Whether `text` is a URL to which a webhook can be sent."""
    try:
        port = urlsplit(text).port
    except ValueError:
        return False
    is_whole = re.fullmatch(r"https?://[^\s/?#@]+([/?][^\s#]*)?", text) is not None
    return is_whole and text.isascii() and port != 0


def _origins(key: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, (tuple, list, set, frozenset)) or not all(isinstance(v, str) for v in values):
        raise _wrong(key, "a list of origins like 'https://example.com' or 'https://*.example.com', or '*'", value)
    for origin in values:
        try:
            check_allowed(origin)
        except ValueError as problem:
            raise ConfigurationError(f"{key}: {problem}") from None
    return tuple(values)


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "enabled": _flag,
    "url_prefix": _path,
    "subdomain": _host,
    "host": _host,
    "backend": _backend,
    "auth_required": _flag,
    "token_in_query": _flag,
    "allowed_origins": _origins,
    "max_connections": _count,
    "max_channels": _count,
    "max_members": _count_or_none,
    "max_message_size": _count,
    "max_user_info": _count,
    "max_outbox": _count,
    "history": _history,
    "rate_limit": _rate,
    "ping_interval": _seconds,
    "ping_timeout": _seconds,
    "token_recheck": _seconds,
    "drain": _seconds_or_zero,
    "grace": _seconds_or_zero,
    "grace_abrupt": _seconds_or_zero,
    "stats_public": _flag,
    "redis_prefix": _prefix,
    "lease": _lease,
    "isolated_workers": _flag,
    "pusher_key": _pusher_key,
    "pusher_secret": _pusher_secret,
    "pusher_app_id": _digits,
    "pusher_path": _path_or_empty,
    "pusher_activity_timeout": _count,
    "pusher_client_events": _rate,
    "pusher_encryption_key": _encryption_key,
    "pusher_webhooks": _urls,
}
