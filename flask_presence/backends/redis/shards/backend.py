"""The backend for several independent Redis servers, each of which is a shard with a part of the channels.

Rule: each shard is a whole `RedisBackend` of its own, with its own heartbeat, leases and channels, and knows nothing of
the others. This module only decides which of them to ask. A shard that does not answer takes only its part with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from ....domain.channels import Channel, ChannelCounts, ChannelList, ChannelName, ChannelType, count_channels
from ....domain.errors import BackendUnavailable, PartlyUnavailable
from ....domain.events import Reason
from ....domain.history import HistorySize, Page, Position, Published
from ....domain.members import Member, OwnedInfo, Profile, User
from ....domain.meter import Counts, add
from ....domain.readings import Survey
from ....domain.roster import Change, Joined, Joiner, Updated
from ....domain.shards import ShardState
from ....loops.base import Loop
from ....loops.inline_loop import InlineLoop
from ....loops.pending import Pending
from ...base import Listener
from ..backend import RedisBackend
from ..store.control import ControlMessage
from ..store.layout import OtherLayout, Shard
from .gather import Answers, ask_all, merge
from .sharding import Sharding

T = TypeVar("T")

SILENT_FOR: Final = 1.0
"""Seconds for which a process without connections does not ask a shard again that did not answer."""

CHECK_OTHERS_EVERY: Final = 1.0
"""Seconds for which a process without connections relies on an answer about the layout."""

ASK_AGAIN_AFTER: Final = 1.0
"""Seconds after which a process that was refused asks again."""

TellOthers = Callable[[ControlMessage, bool], object]
CheckOthers = Callable[[], object]


@dataclass(slots=True)
class _Place:
    """Where one of this process's connections is registered: its home, and the shards in which it has joined."""

    home: str
    user: User | None
    joined: set[str] = field(default_factory=set)


class ShardedBackend:
    """See `Backend`. `open_shard` creates the backend of one shard of `labels`, without connecting to it."""

    blocking = True
    outlives_process = True

    def __init__(
        self, labels: Sequence[str], open_shard: Callable[[Shard, TellOthers, CheckOthers], RedisBackend]
    ) -> None:
        self._sharding = sharding = Sharding(labels)
        self._shards = {
            label: open_shard(
                Shard(label, sharding.labels, records=label == sharding.control),
                partial(self._tell_others, label),
                partial(self._check_others, label),
            )
            for label in sharding.labels
        }
        self._begin()

    def _begin(self) -> None:
        """Start without connections, and without a loop."""
        self._loop: Loop | None = None
        self._is_open = False
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._refused: tuple[float, str | None] = (0.0, None)  # until when, and why
        self._absorbed: dict[str, Counts] = {}
        self._silent: dict[str, tuple[float, BackendUnavailable]] = {}  # until when, by label
        self._checks_others = threading.Lock()
        self._others_checked_at = float("-inf")

    # The life of the process

    def bind(self, listener: Listener) -> None:
        for shard in self._shards.values():
            shard.bind(listener)

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._is_open = True
        for shard in self._shards.values():
            shard.start(loop)

    def tick(self, now: float) -> None:
        for shard in self._shards.values():
            shard.tick(now)

    def close(self) -> None:
        self._is_open = False
        self._do_in_each(RedisBackend.close)

    def forked(self) -> None:
        self._begin()
        for shard in self._shards.values():
            shard.forked()

    def obstacle(self) -> str | None:
        """As in `Directory`. Waits until each shard has answered the first heartbeat, or does not answer.

        A process that is refused holds nothing in any shard, so that it does not keep out the workers that are right.
        It asks again a second later.
        """
        loop = self._loop
        if loop is None:
            return None
        is_settled = not any(shard.awaits_heartbeat for shard in self._shards.values())
        if is_settled and self._first_obstacle() is None and self._is_open:
            return None
        with self._lock:
            until, refusal = self._refused
            if time.monotonic() < until:
                return refusal
            if not self._is_open:
                if refusal is None:
                    return None  # it has been closed for another reason
                self.start(loop)
            self._do_in_each(RedisBackend.await_heartbeat)
            found = self._first_obstacle()
            self._refused = (0.0, None)
            if found is not None and not self._places:
                self._refused = (time.monotonic() + ASK_AGAIN_AFTER, found)
                self.close()
            return found

    def _first_obstacle(self) -> str | None:
        obstacles = (shard.obstacle() for shard in self._shards.values())
        return next((obstacle for obstacle in obstacles if obstacle is not None), None)

    # Connections

    def opened(self, client_id: str, user: User | None) -> None:
        if not self._is_open and self._loop is not None:
            self.start(self._loop)  # a test client may have closed it
        home = self._sharding.home(client_id, None if user is None else user.id)
        place = self._places.get(client_id)
        if place is None:
            self._places[client_id] = _Place(home, user)
            self._shards[home].opened(client_id, user)
            return
        before, place.home, place.user = place.home, home, user
        # The new home learns of it before the old one forgets it, so that some shard announces its end.
        self._shards[home].opened(client_id, user)
        if before != home:
            self._shards[before].closed(client_id)
        for label in place.joined - {home}:
            self._shards[label].guest_opened(client_id, user)

    def closed(self, client_id: str) -> None:
        place = self._places.pop(client_id, None)
        if place is not None:
            self._shards[place.home].closed(client_id)
            for label in place.joined - {place.home}:
                self._shards[label].guest_closed(client_id)

    def join(self, joiner: Joiner) -> Pending[Joined]:
        label = self._sharding.of_channel(joiner.channel)
        place = self._places.get(joiner.client_id)
        if place is not None and label not in place.joined:
            place.joined.add(label)
            if label != place.home:
                self._shards[label].guest_opened(joiner.client_id, place.user)
        return self._shards[label].join(joiner)

    # Channels

    def leave(
        self, channel: ChannelName, client_id: str, now: datetime, reason: Reason, *, grace: float = 0
    ) -> Pending[Change | None] | None:
        return self._of(channel).leave(channel, client_id, now, reason, grace=grace)

    def update(
        self,
        channel: ChannelName,
        client_id: str,
        info: Mapping[str, Any],
        now: datetime,
        owned: OwnedInfo | None = None,
    ) -> Pending[Updated]:
        return self._of(channel).update(channel, client_id, info, now, owned)

    def publish(self, channel: str, payload: bytes, exclude: str | None) -> Pending[int]:
        return self._of(channel).publish(channel, payload, exclude)

    def publish_kept(self, channel: str, payload: bytes, exclude: str | None, key: str | None) -> Pending[Published]:
        return self._of(channel).publish_kept(channel, payload, exclude, key)

    def profile(self, channel: ChannelName, client_id: str) -> Profile | None:
        return self._of(channel).profile(channel, client_id)

    def broadcast(self, channel: str, payload: bytes, exclude: str | None, *, keep: bool = False) -> int:
        return self._to_ask(channel).broadcast(channel, payload, exclude, keep=keep)

    def history(self, channel: str, limit: int, before: Position | None) -> Page:
        return self._to_ask(channel).history(channel, limit, before)

    def clear_history(self, channel: str) -> int:
        return self._to_ask(channel).clear_history(channel)

    def get(self, name: str) -> Channel | None:
        return self._to_ask(name).get(name)

    def members(self, name: str) -> Sequence[Member]:
        return self._to_ask(name).members(name)

    def connections_of(self, name: str) -> Mapping[str, int]:
        return self._to_ask(name).connections_of(name)

    def remove(self, channel: str, user_id: str, text: str) -> int:
        """As in `Directory`. The channel's shard has the message, because the grace period to end is there too."""
        return self._to_ask(channel).remove(channel, user_id, text)

    def watch(self, name: str | None = None) -> Iterator[tuple[ChannelName, Change] | None]:
        if name is not None:
            return self._of(name).watch(name)
        return merge({label: shard.watch for label, shard in self._shards.items()})

    # Users, and the whole service

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        label = self._sharding.control if user_id is None else self._sharding.of_user(user_id)
        message = self._shards[label].new_control(text, user=user_id, client=client_id)
        closed = self._send_control(label, message)
        self._end_graces(label, user_id, client_id)
        return closed

    def recheck(self, user_id: str | None, channel: str | None) -> int:
        """As in `Directory`. What is about a channel is up to its shard, as in `remove`."""
        if channel is not None:
            return self._to_ask(channel).recheck(user_id, channel)
        label = self._sharding.control if user_id is None else self._sharding.of_user(user_id)
        count = self._send_control(label, self._shards[label].new_control(kind="recheck", user=user_id))
        if user_id is not None:
            self._end_graces(label, user_id, None)
        return count

    def send_to_user(self, user_id: str, payload: bytes) -> int:
        return self._if_up(self._sharding.of_user(user_id)).send_to_user(user_id, payload)

    def is_online(self, user_id: str) -> bool:
        return self._if_up(self._sharding.of_user(user_id)).is_online(user_id)

    def check(self) -> None:
        answers = self._ask_each(RedisBackend.check)
        if answers.problems:
            _raise_if_all(answers)
            raise PartlyUnavailable(f"shards that do not answer: {', '.join(answers.unavailable)}")

    def shards(self, *, with_counts: bool = False) -> tuple[ShardState, ...]:
        def count(shard: RedisBackend) -> tuple[int | None, int | None]:
            shard.check()
            return (len(shard.channels()), shard.workers()) if with_counts else (None, None)

        answers = self._ask_each(count)
        return tuple(
            ShardState(
                label,
                answers.problems[label].public_message if label in answers.problems else None,
                label == self._sharding.control,
                *answers.values.get(label, (None, None)),
            )
            for label in self._shards
        )

    def channels(self, kind: ChannelType | None = None, prefix: str | None = None) -> ChannelList:
        answers = self._ask_each(lambda shard: shard.channels(kind, prefix))
        _raise_if_all(answers)
        found = [
            channel
            for label, channels in answers.values.items()
            for channel in channels
            if self._sharding.of_channel(channel.name) == label  # else it has moved, and a grace period is left
        ]
        return ChannelList(sorted(found, key=lambda one: (one.created_at, one.name)), answers.unavailable)

    def counts(self) -> ChannelCounts:
        channels = self.channels()
        return ChannelCounts(*count_channels(channels), channels.unavailable)

    def connections(self) -> int:
        return sum(self._ask_any(RedisBackend.connections))

    def history_size(self, channel: str | None) -> HistorySize | None:
        if channel is not None:
            return self._to_ask(channel).history_size(channel)
        sizes = [size for size in self._ask_any(lambda shard: shard.history_size(None)) if size is not None]
        return HistorySize(sum(size.messages for size in sizes), sum(size.bytes for size in sizes))

    def survey(self) -> Survey:
        """As in `Directory`. The control shard has the readings. The others have counted what happened to the
        connections of dead workers; for a shard that does not answer, what it said last is used, so that no count
        falls."""
        answers = self._ask_each(RedisBackend.survey)
        _raise_if_all(answers)
        for label, survey in answers.values.items():
            self._absorbed[label] = survey.absorbed
        unknown = tuple(
            label for label in answers.unavailable if label not in self._absorbed or label == self._sharding.control
        )
        readings = answers.values.get(self._sharding.control, Survey((), {}, {}))
        return replace(readings, absorbed=add(*self._absorbed.values()), unavailable=unknown)

    # Helpers

    def _of(self, channel: str) -> RedisBackend:
        return self._shards[self._sharding.of_channel(channel)]

    def _to_ask(self, channel: str) -> RedisBackend:
        """The shard of a channel, for code that waits for the answer. See `_if_up`."""
        return self._if_up(self._sharding.of_channel(channel))

    def _if_up(self, label: str) -> RedisBackend:
        """The shard with that label. Raises `BackendUnavailable` if this process's worker has found it down. Otherwise
        the caller would wait for a server that hangs until it times out. If there are few threads, callers that ask the
        other shards would have to wait too."""
        shard = self._shards[label]
        shard.check_up()
        return shard

    def _send_control(self, label: str, message: ControlMessage) -> int:
        """Send a control message through one shard, and copies through the others if they may have grace periods to
        end. A shard that does not answer gets its copy from the workers when it is back."""
        count = self._if_up(label).send_control(message)
        if message.ends_graces:
            self._ask_each(lambda shard: shard.send_copy(message), without=label)
        return count

    def _end_graces(self, label: str, user_id: str | None, client_id: str | None) -> None:
        """End grace periods in all shards. Raises `BackendUnavailable` if the shard with that label does not answer."""
        answers = self._ask_each(lambda shard: shard.end_graces(user_id, client_id, None))
        if label in answers.problems:
            raise answers.problems[label]

    def _tell_others(self, label: str, message: ControlMessage, late: bool) -> None:
        """Let the workers of the other shards end the grace periods of a message that this process has carried out. In
        the loop."""
        for other, shard in self._shards.items():
            if other != label:
                shard.note_copy(message, late)

    def _check_others(self, label: str) -> None:
        """Raise `OtherLayout` if the workers that are alive have other shards than this process. They are not in the
        shard with that label, which may be one that they do not know; so what is sent there would reach nobody."""
        with self._checks_others:
            if time.monotonic() - self._others_checked_at < CHECK_OTHERS_EVERY:
                return
            answers = self._ask_each(RedisBackend.finds_layout, without=label)
            for problem in answers.problems.values():
                if isinstance(problem, OtherLayout):
                    raise problem
            self._others_checked_at = time.monotonic()

    def _ask_any(self, question: Callable[[RedisBackend], T]) -> list[T]:
        """The answers of the shards that answer. Raises `BackendUnavailable` if none does."""
        answers = self._ask_each(question)
        _raise_if_all(answers)
        return list(answers.values.values())

    def _ask_each(self, question: Callable[[RedisBackend], T], without: str | None = None) -> Answers[T]:
        """Ask all shards, except one with the label `without`, at the same time. One that is known not to answer is not
        asked, so that a server that hangs holds up each answer for a moment only."""

        def ask(label: str, shard: RedisBackend) -> T:
            shard.check_known()
            until, known = self._silent.get(label, (0.0, None))
            if known is not None and time.monotonic() < until:
                raise _without_history(known)
            try:
                return question(shard)
            except BackendUnavailable as problem:
                if not shard.has_worker:
                    self._silent[label] = (time.monotonic() + SILENT_FOR, _without_history(problem))
                raise

        return self._gather(ask, without)

    def _do_in_each(self, action: Callable[[RedisBackend], object]) -> None:
        self._gather(lambda _, shard: action(shard), None)

    def _gather(self, ask: Callable[[str, RedisBackend], T], without: str | None) -> Answers[T]:
        questions = {label: partial(ask, label, shard) for label, shard in self._shards.items() if label != without}
        # A test client's loop runs in whichever thread waits for it, so there must be only one.
        return ask_all(questions, at_once=not isinstance(self._loop, InlineLoop))


def _without_history(problem: BackendUnavailable) -> BackendUnavailable:
    """The same error without a traceback and a cause, which would keep connections alive."""
    return type(problem)(str(problem))


def _raise_if_all(answers: Answers[Any]) -> None:
    """Raise `BackendUnavailable` if no shard answers."""
    if answers.problems and not answers.values:
        raise next(iter(answers.problems.values()))
