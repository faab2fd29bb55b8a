"""Pools that stay between calls, for who has no place to keep one.

Purpose: whoever asks again for a pool with the same settings gets the same one, with its workers, their imports and
    their caches.
Guarantees: a pool that somebody uses is not shut down. One that nobody has used for as long as its last user said is,
    and so is the longest idle one if there are more than two. A broken pool is not given to anybody. When all have been
    idle for a moment, free memory goes back to the kernel: what comes next may be work without us, which needs it.
Assumptions: none of threads: the lock is held for looking and noting, not while pools start or end. In a forked child
    there are no pools yet.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shmexec.arrays import trim
from shmexec.executor import SharedExecutor

_MOST_IDLE = 2
_MOMENT = 0.1  # seconds: between two calls of a loop there is less


@dataclass(eq=False)
class _Kept:
    """A pool. With no users it is idle, since `idle_since`, for `patience` seconds at most."""

    settings: Mapping[str, Any]
    executor: SharedExecutor
    users: int = 0
    idle_since: float = 0.0
    patience: float = 0.0

    @property
    def is_good(self) -> bool:
        return not (self.executor._broken or self.executor._shutdown_thread)

    @property
    def ends_at(self) -> float:
        return self.idle_since + self.patience


class KeptPools:
    """The pools of one process, by the arguments that they were made with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: list[_Kept] = []  # the longest idle first
        self._timer: threading.Timer | None = None
        self._due = 0.0  # when its time is over
        self._cancelled: list[threading.Timer] = []  # whose threads may not have ended yet
        self._is_trimmed = True

    def acquire(
        self, settings: Mapping[str, Any], key: Mapping[str, Any], preload: Sequence[str] = ()
    ) -> SharedExecutor:
        """A pool with these settings, until `release`.

        Parameters
        ----------
        settings : mapping
            The keyword arguments of `SharedExecutor`.
        key : mapping
            What else must be equal.
        preload : sequence of str
            For a pool that is made now, if the settings do not say; one that is there will do without.
        """
        wanted = {**settings, **key}
        with self._lock:
            bad = [kept for kept in self._pools if not (kept.users or kept.is_good)]
            self._pools = [kept for kept in self._pools if kept not in bad]
            found = next((kept for kept in self._pools if kept.is_good and _are_equal(kept.settings, wanted)), None)
            if found is None:  # the constructor starts nothing that takes time
                found = _Kept(wanted, SharedExecutor(**{"preload": preload, **settings}))
                self._pools.append(found)
            found.users += 1
            self._is_trimmed = False
        _shut_down(bad)
        return found.executor

    def release(self, executor: SharedExecutor, patience: float) -> None:
        """Nobody needs it now; it stays for so many seconds."""
        with self._lock:
            kept = next((kept for kept in self._pools if kept.executor is executor), None)
            if kept is None:  # `shutdown` has it
                return
            kept.users -= 1
            kept.idle_since, kept.patience = time.monotonic(), patience
            self._pools.remove(kept)
            self._pools.append(kept)
            idle = [other for other in self._pools if not other.users]
            ended = idle[: max(0, len(idle) - _MOST_IDLE)]
            self._pools = [other for other in self._pools if other not in ended]
            self._set_timer()
        _shut_down(ended)

    def shutdown(self) -> None:
        """End all pools that nobody uses, now. The others end with their last user's process."""
        with self._lock:
            self._cancel_timer()
            timers, self._cancelled = self._cancelled, []
            ended = [kept for kept in self._pools if not kept.users]
            self._pools = [kept for kept in self._pools if kept.users]
        for timer in timers:
            timer.join()
        _shut_down(ended)

    def _set_timer(self) -> None:
        """Under the lock. For the next thing that may be to be done; if it is not by then, for another."""
        times = [kept.ends_at for kept in self._pools if not kept.users]
        if not times:
            return
        now = time.monotonic()
        due = min(times) if self._is_trimmed else min(now + _MOMENT, *times)
        if self._timer is not None and self._due <= due:
            return
        self._cancel_timer()
        timer = threading.Timer(max(0.0, due - now), self._on_time)
        timer.name, timer.daemon = "shmexec-idle-pools", True
        try:
            timer.start()
        except RuntimeError:  # the interpreter ends, and with it the pools
            return
        self._timer, self._due = timer, due

    def _cancel_timer(self) -> None:
        self._cancelled = [timer for timer in self._cancelled if timer.is_alive()]
        if self._timer is not None:
            self._timer.cancel()
            self._cancelled.append(self._timer)
            self._timer = None

    def _on_time(self) -> None:
        now = time.monotonic()
        with self._lock:
            if self._timer is not threading.current_thread():
                return
            self._timer = None
            ended = [kept for kept in self._pools if not kept.users and kept.ends_at <= now]
            self._pools = [kept for kept in self._pools if kept not in ended]
            used = max((now if kept.users else kept.idle_since for kept in self._pools), default=0.0)
            trims = not self._is_trimmed and used + _MOMENT / 2 < now
            self._is_trimmed |= trims
            self._set_timer()
        if trims:
            trim()
        _shut_down(ended)

    def forget_in_child(self) -> None:
        """The pools are the parent's."""
        self.__init__()  # type: ignore[misc]


def _shut_down(pools: list[_Kept]) -> None:
    for kept in pools:
        kept.executor.shutdown(wait=True)


def _are_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.keys() != other.keys():
        return False
    for name, value in one.items():
        if value is not other[name]:
            try:
                if value != other[name]:
                    return False
            except Exception:  # arrays, say, do not tell: then it is another
                return False
    return True


kept_pools = KeptPools()
os.register_at_fork(after_in_child=kept_pools.forget_in_child)
