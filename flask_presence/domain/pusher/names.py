"""Channel names, addresses of users, and socket ids, as Pusher's clients write them.

Rule: nothing outside the alphabet of names is ever signed, so no name can be read as other signed text.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

MAX_NAME_LENGTH: Final = 200
CLIENT_EVENT: Final = "client-"
"""What the names of client events begin with."""
RESERVED_EVENTS: Final = ("pusher:", "pusher_internal:")
"""What the names of the protocol's own events begin with."""

_NAME: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]{1,200}")
_SOCKET_ID: Final = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")
_NATIVE_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_USER_ADDRESS: Final = "#server-to-user-"
_CACHE: Final = ("cache-", "private-cache-", "presence-cache-")
_ENCRYPTED: Final = "private-encrypted-"


def is_channel_name(name: str) -> bool:
    """Whether a client of this dialect may use the name: 1 to 200 characters of `A-Za-z0-9_-=@,.;`."""
    return _NAME.fullmatch(name) is not None


def is_cache(name: str) -> bool:
    """Whether subscribers of the channel hear its last event, or that there is none."""
    return name.startswith(_CACHE)


def is_encrypted(name: str) -> bool:
    """Whether the clients encrypt what is sent in the channel, so that no client may send events."""
    return name.startswith(_ENCRYPTED)


def is_reserved_event(event: str) -> bool:
    """Whether the name belongs to the protocol, so that nobody may publish it."""
    return event.startswith(RESERVED_EVENTS)


def user_address(user_id: str) -> str:
    """The address at which a user's signed-in connections hear `send_to_user`. It is not a channel."""
    return _USER_ADDRESS + user_id


def addressed_user(name: str) -> str | None:
    """The id of the user whose address `name` is; `None` if it is not an address."""
    return name.removeprefix(_USER_ADDRESS) if name.startswith(_USER_ADDRESS) else None


def new_socket_id() -> str:
    """A new socket id, which no connection has had before, so that no old signature fits it."""
    return f"{secrets.randbelow(10**18)}.{secrets.randbelow(10**18)}"


def is_socket_id(text: str) -> bool:
    return _SOCKET_ID.fullmatch(text) is not None


def is_client_id(text: str) -> bool:
    """Whether `text` has the form of the id of a connection, of this dialect or a native one."""
    return is_socket_id(text) or _NATIVE_ID.fullmatch(text) is not None


def came_by_pusher(client_id: str) -> bool:
    """Whether a client id is a socket id: those of native connections have no dot."""
    return "." in client_id
