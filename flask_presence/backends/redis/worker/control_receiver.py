"""The control messages that reach this worker, and the ones it missed.

Rule: a message is carried out once, whether it is heard, sent by this worker, or read after the subscription was lost.
None is lost: after every gap all messages that Redis keeps are read, and if Redis loses them, workers send them again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from ....domain.errors import BackendUnavailable
from ....domain.events import MemberLeft
from ....loops.pending import Outcome, Pending, then, when_all
from ...base import Listener
from ..client.pipeline import Pipeline
from ..client.subscriber import Subscriber
from ..store import control
from ..store.store import Store
from .local_channels import LocalChannels

log = logging.getLogger("flask_presence")

MAX_KEPT: Final = 1000
"""How many messages a worker keeps, to send them again if Redis loses its data."""
MAX_STANDSTILL: Final = control.KEPT_FOR / 2
"""Seconds for which a process may stand still, and still find in Redis every message that it has missed."""


class ControlReceiver:
    """Carries out control messages on this worker's connections. `worker_id` returns the worker's current id.

    `tell_others` is called with each message that ends grace periods in all channels, and whether it is late, so that
    other shards end theirs.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        subscriber: Subscriber,
        channels: LocalChannels,
        listener: Listener,
        worker_id: Callable[[], str],
        lease: float,
        tell_others: Callable[[control.ControlMessage, bool], object] = lambda *_: None,
    ) -> None:
        self._keys = store.keys
        self._tell_others = tell_others
        self._graces = store.graces
        self._pipeline = pipeline
        self._subscriber = subscriber
        self._channels = channels
        self._listener = listener
        self._worker_id = worker_id
        self._began_at = time.time()
        self._lease = lease
        self._graces_begun: deque[tuple[float, str | None, str, str]] = deque()  # when, user, client and channel
        self._ticked_at = time.monotonic()
        self._carried_out: dict[str, float] = {}
        self._kept: deque[tuple[float, control.ControlMessage]] = deque(maxlen=MAX_KEPT)
        self._missed_since: float | None = time.monotonic()  # while it is cut off
        self._losses = 0
        self._lost_at = self._rechecked_all_at = 0.0
        self._waits_for_subscription = False

    @property
    def is_heard(self) -> bool:
        """Whether control messages are heard here now."""
        return self._subscriber.connected and self._subscriber.subscribe(self._keys.control).settled

    def begin(self) -> None:
        """Subscribe, and carry out what was sent until the subscription began."""
        self._await_subscription()

    def carry_out(self, message: control.ControlMessage, *, late: bool = False) -> Pending[int]:
        """Carry out a message. Returns how many connections it concerned."""
        now = time.monotonic()
        self._carried_out[message.id] = now
        self._kept.append((now, message))
        done: Pending[int] = Pending()
        then(self._apply(message), done.settle)
        if message.ends_graces and message.channel is None:
            self._tell_others(message, late)
        return done

    def note_copy(self, message: control.ControlMessage, late: bool) -> None:
        """Take part in a message that another shard has. If Redis is down, that is done when it is back."""
        self._take(control.copy_of(message), late=late)

    def hear(self, data: bytes) -> None:
        """Carry out a message that was published, unless that has been done, and reply."""
        self._take(control.decode(data))

    def lost(self) -> None:
        """Handle the loss of the subscription."""
        self._losses += 1
        self._lost_at = time.monotonic()
        if self._missed_since is None:
            self._missed_since = self._subscriber.heard_at
        self._await_subscription()

    def send_again(self) -> None:
        """Send once more the messages that Redis has lost, in case a worker has not carried them out. End once more the
        grace periods that they ended."""
        now = time.monotonic()
        recent = [message for kept_at, message in self._kept if now - kept_at < control.KEPT_FOR]
        if recent:
            self._pipeline.run(control.send_again(self._keys, recent)).when(self._sent_again)
            ended = self._graces.end_all_matching(control.ended_graces(recent))
            self._pipeline.run(ended).when(self._graces_ended)

    def recheck_everywhere(self) -> None:
        """Have all workers recheck their connections, because Redis has lost changes that took permissions away. Do
        nothing if all have been rechecked since the subscription was lost, because another worker noticed it too."""
        if self._rechecked_all_at <= self._lost_at:
            message = control.new_message(self._worker_id(), kind="recheck")
            self.carry_out(message)
            self._pipeline.run(control.send(self._keys, message)).when(self._sent_again)

    def grace_begins(self, user_id: str | None, client_id: str, channel: str) -> None:
        """Note that a grace period begins here. A message that was sent before, and is heard later, ends it."""
        now = time.monotonic()
        self._graces_begun.append((now, user_id, client_id, channel))
        while now - self._graces_begun[0][0] > 2 * self._lease:
            self._graces_begun.popleft()

    def tick(self, now: float) -> None:
        """Notice, at `now`, in seconds of the monotonic clock, that this process has stood still."""
        stood_still, self._ticked_at = now - self._ticked_at, now
        if stood_still > MAX_STANDSTILL:
            self._recheck_all()

    def _take(self, message: control.ControlMessage, *, late: bool = False) -> None:
        if message.id in self._carried_out:
            return
        if (late or message.again) and message.sent_at < self._began_at:
            return  # the user may have connected again since then, and may stay
        now = time.monotonic()
        while self._carried_out and now - next(iter(self._carried_out.values())) > 2 * control.KEPT_FOR:
            del self._carried_out[next(iter(self._carried_out))]
        if message.origin == self._worker_id():
            return
        if message.is_copy:
            self._carried_out[message.id] = now
            self._kept.append((now, message))
        else:
            carried_out = self.carry_out(message, late=late or message.again)
            carried_out.when(lambda count: self._pipeline.run(control.reply(self._keys, message, count())))
        is_late = late or message.again or any(message.is_about(*what) for _, *what in self._graces_begun)
        if is_late and message.ends_graces:
            self._end_graces(message)

    def _apply(self, message: control.ControlMessage) -> int | Pending[int]:
        if message.kind == "recheck":
            is_of_app = message.user is not None or message.channel is not None
            if not is_of_app:
                self._rechecked_all_at = time.monotonic()
            return self._listener.recheck(message.user, message.channel, ask_signers=is_of_app)
        if message.kind == "remove":
            return self._listener.remove_from(message.channel or "", message.user or "", message.text)
        return self._listener.close_matching(message.user, message.client, message.text)

    def _end_graces(self, message: control.ControlMessage) -> None:
        """End the grace periods that this worker has begun since the message was sent, or is about to begin. The sender
        has ended the earlier ones."""
        which = (message.user, message.client, message.channel)
        healing = self._channels.without_grace(*which)
        when_all(healing, lambda: self._pipeline.run(self._graces.end_matching(*which)).when(self._graces_ended))

    @staticmethod
    def _sent_again(outcome: Outcome[object]) -> None:
        try:
            outcome()
        except BackendUnavailable as problem:
            log.warning("control messages will be sent when Redis is back: %s", problem)

    def _graces_ended(self, outcome: Outcome[list[MemberLeft]]) -> None:
        try:
            events = outcome()
        except BackendUnavailable as problem:
            log.warning("grace periods will be ended when Redis is back: %s", problem)
            return
        for event in events:
            self._listener.notify(event)

    def _await_subscription(self) -> None:
        if not self._waits_for_subscription:
            self._waits_for_subscription = True
            self._subscriber.subscribe(self._keys.control).when(self._catch_up)

    def _catch_up(self, subscribed: Outcome[None]) -> None:
        """Carry out the messages that were sent while nothing was heard."""
        self._waits_for_subscription = False
        try:
            subscribed()
        except BackendUnavailable:
            self._await_subscription()  # waiting was given up, but the subscriber goes on trying
            return
        if self._missed_since is not None:
            kept = self._pipeline.run(control.kept(self._keys))
            kept.when(partial(self._take_missed, self._missed_since, self._losses))

    def _take_missed(self, since: float, losses: int, outcome: Outcome[list[control.ControlMessage]]) -> None:
        try:
            missed = outcome()
        except BackendUnavailable:
            self._subscriber.reset()  # after which this is done again
            return
        if losses == self._losses:
            self._missed_since = None  # otherwise the subscription has been lost again, and this is done again too
        for message in missed:
            self._take(message, late=True)
        self.send_again()
        if time.monotonic() - since > control.KEPT_FOR:
            self._recheck_all()

    def _recheck_all(self) -> None:
        log.warning("this worker was cut off from Redis for so long that it rechecks all of its connections")
        self._listener.recheck(None, None)
