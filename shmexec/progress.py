"""How far a `map` has come: a bar on the terminal or in the notebook, plain lines, or calls of a user's function.

Guarantees: everything is shown by the thread that iterates over the map's results, while it waits for one, ten times a
    second at most; nothing is written where nobody looks.

Some facts: tqdm knows terminals and notebooks; in a notebook stderr is no terminal; tqdm without ipywidgets warns
    there, and writes text.
What this means for us: a notebook is recognised by its shell, before tqdm is asked.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

Progress = bool | str | Callable[[float, int | None], object]

Reported = tuple[int, float | None, str | None, float | str]  # items before it, fraction, text, which is newer: that

_VARIABLE = "SHMEXEC_PROGRESS"
_INTERVAL = 0.1  # seconds between two looks


class Bar(Protocol):
    """What shows it."""

    def show(self, done: float, text: str | None) -> None:
        """So many calls are done, and what the running ones have reported of themselves; a task's text."""

    def close(self) -> None:
        """That was all."""


def checked_progress(progress: Progress) -> Progress:
    """True, False, a label or a callable; else TypeError. ValueError for what the environment says."""
    if not (isinstance(progress, (bool, str)) or callable(progress)):
        raise TypeError(f"progress must be True, False, a label or a callable, not {type(progress).__name__}")
    if progress is not False:
        wish()
    return progress


def make_bar(progress: Progress, total: int | None) -> Bar | None:
    """What shows the progress of `total` calls (None: of nobody knows how many); None if nobody would see it."""
    if callable(progress):
        return _Calls(progress, total)
    label = progress if isinstance(progress, str) else ""
    wanted, in_notebook = wish(), _in_notebook()
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if progress is False or wanted == "never" or sys.stderr is None:
        return None
    if (is_terminal or in_notebook) and (tqdm := _find_tqdm()) is not None:
        return _Tqdm(tqdm, label, total)
    return _Lines(label, total) if is_terminal or in_notebook or wanted == "always" else None


class Watch:
    """What who waits calls; shows how far the map has come when it is time to.

    Parameters
    ----------
    make : callable
        Makes the bar, when it is first needed.
    finished : callable
        How many calls have ended.
    reports : callable
        What the running ones have reported.
    """

    def __init__(
        self,
        make: Callable[[], Bar | None],
        finished: Callable[[], int],
        reports: Callable[[], Iterable[Reported]],
    ) -> None:
        self._make, self._finished, self._reports = make, finished, reports
        self._bar: Bar | None = None
        self._due: float | None = None  # None: there is no bar yet
        self._done: float = 0

    def __call__(self) -> float:
        """Show what is new; seconds after which to call again."""
        now = time.monotonic()
        if self._due is None:
            self._bar = self._make()
            self._due = now
        if now >= self._due:
            self._due = now + _INTERVAL
            self._look()
        return self._due - now

    def _look(self) -> None:
        if self._bar is None:
            return
        done: float = self._finished()  # first: a call that ends in between counts for nothing, rather than twice
        text = None
        for items, fraction, said, _ in self._reports():
            done += items + (fraction or 0)
            text = said or text
        self._done = max(self._done, done if isinstance(done, int) else round(done, 2))
        self._bar.show(self._done, text)

    def close(self) -> None:
        """The map is over, or nobody iterates over it any more."""
        if self._bar is not None:
            bar = self._bar
            try:
                self._look()
            finally:
                self._bar = None
                bar.close()


class _Calls:
    """Of the user's callable: at the beginning, and when there is something new."""

    def __init__(self, function: Callable[[float, int | None], object], total: int | None) -> None:
        self._function, self._total = function, total
        self._told: float | None = None

    def show(self, done: float, text: str | None) -> None:
        if done != self._told:
            self._told = done
            self._function(done, self._total)

    def close(self) -> None:
        pass


class _Tqdm:
    def __init__(self, tqdm: Any, label: str, total: int | None) -> None:
        quiet = type("Bar", (tqdm,), {"monitor_interval": 0})  # no thread that looks after it: we do
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._bar = quiet(total=total, desc=label or None, dynamic_ncols=True)

    def show(self, done: float, text: str | None) -> None:
        self._bar.n = done
        if text is not None:
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """On stderr: one a second at first, then one each time that a twentieth more of the time has gone by."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = f"{label}: " if label else ""
        self._total = total
        self._begun = self._said_at = time.monotonic()
        self._line = ""
        self._said = ""

    def show(self, done: float, text: str | None) -> None:
        now = time.monotonic()
        of = "" if self._total is None else f"/{self._total} ({done / max(self._total, 1):.0%})"
        self._line = f"{self._label}{done:g}{of}" + (f", {text}" if text else "")
        if now - self._said_at >= max(1.0, (now - self._begun) / 20):
            self._say(now)

    def close(self) -> None:
        self._say(time.monotonic())

    def _say(self, now: float) -> None:
        if self._line != self._said:
            self._said, self._said_at = self._line, now
            print(f"{self._line}, {now - self._begun:.1f} s", file=sys.stderr, flush=True)


def wish() -> str:
    """What the environment says of bars: auto, always or never; ValueError if it is something else."""
    wanted = os.environ.get(_VARIABLE) or "auto"
    if wanted not in ("auto", "always", "never"):
        raise ValueError(f"the environment variable {_VARIABLE} must be auto, always or never, not {wanted!r}")
    return wanted


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())


def _find_tqdm() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tqdm.autonotebook import tqdm
    except ImportError:
        return None
    return tqdm
