"""Whether a worker's copy of a channel can be trusted, and whether Redis knows the worker's connections in it.

Rule: only this module knows. A copy is behind until a snapshot is loaded, and again as soon as an event may have been
missed. It is in doubt if Redis and the worker may disagree about who is here. Either ends with a heal.
"""

from __future__ import annotations

from functools import partial

from ....loops.pending import Pending


class Health:
    """The health of one copy. `healing` is settled when the heal under way has ended.

    `losses` counts how often events may have been missed: a snapshot that was asked for before the last loss is
    useless. `lists_missing`: the copy still lists members who are missing from the last snapshot.
    """

    __slots__ = ("_again", "_contradicted", "healing", "in_doubt", "is_current", "lists_missing", "losses")

    def __init__(self) -> None:
        self.is_current = False
        self.in_doubt = False
        self.lists_missing = False
        self.losses = 0
        self.healing: Pending[None] | None = None
        self._contradicted = False
        self._again = False

    def fall_behind(self) -> None:
        """Note that an event is missing: the next one that arrived does not follow the last."""
        self.is_current = False

    def lose(self) -> None:
        """Note that events may have been missed, so the copy is behind until the next snapshot."""
        self.is_current = False
        self.losses += 1

    def loaded(self, *, lists_missing: bool) -> None:
        """Note that a snapshot has been loaded."""
        self.is_current = True
        self.lists_missing = lists_missing

    def doubt(self) -> None:
        """Note that Redis may list connections that are not here, or lack some that are. Healed at the next tick."""
        self.in_doubt = True

    def contradict(self) -> None:
        """Note that Redis has announced that a user left, although the user is here. Healed at once."""
        self._contradicted = True

    @property
    def needs_heal_now(self) -> bool:
        """Whether a heal has to start now. If one is under way, its end decides about the next."""
        return self.healing is None and (not self.is_current or self._contradicted)

    def request_heal(self) -> tuple[bool, Pending[None]]:
        """Whether the caller has to start a heal, and what is settled when it ends. If a heal is under way, another one
        follows it."""
        if self.healing is not None:
            self._again = True
            return False, self.healing
        self.healing = Pending()
        return True, self.healing

    def heal_starts(self) -> None:
        """Note that a heal starts, which settles everything that was in doubt until now."""
        self._again = self.in_doubt = self._contradicted = False

    def heal_ends(self, problem: Exception | None) -> bool:
        """Settle `healing`. Returns whether another heal has to follow at once; after a problem it waits for the
        tick."""
        healing, self.healing = self.healing, None
        if problem is not None:
            self.in_doubt = True
        if healing is not None:
            healing.settle(partial(_outcome, problem))
        return problem is None and (self._again or self.needs_heal_now)


def _outcome(problem: Exception | None) -> None:
    if problem is not None:
        raise problem
