"""What is seen of a batch while it runs: one line on the terminal."""

import os
import shutil
import sys
import time

from shmexec.progress import wish
from shmexec.quantities import clock, decimal_size

_INTERVAL = 0.1
_WIDTH = 20


def bar_text(done: int, total: int, bytes_done: int, bytes_total: int, seconds: float, failed: int = 0) -> str:
    """How far it is, how fast, and how long it takes still: by bytes, as long as files have any."""
    share = bytes_done / bytes_total if bytes_total > 0 else done / max(total, 1)
    filled = int(share * _WIDTH)
    text = f"{done}/{total} [{'#' * filled}{'-' * (_WIDTH - filled)}]"
    if done and seconds > 0:
        text += f" {done / seconds:.3g} files/s, {decimal_size(bytes_done / seconds)}/s"
        if share > 0:
            text += f", {clock(seconds * (1 - share) / share)} left"
    return text + (f", {failed} failed" if failed else "")


class Line:
    """On a terminal one line that is drawn again; elsewhere nothing, or, if the environment asks for it, some lines."""

    def __init__(self, total: int, bytes_total: int) -> None:
        wanted = wish()
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and wanted != "never"
        self._is_text = wanted == "always" and not self._is_terminal
        self._total, self._bytes_total = total, bytes_total
        self.begun = time.monotonic()
        self._due = self.begun
        self._drawn = False

    @property
    def pause(self) -> float | None:
        """Seconds after which to show it again, whatever happens."""
        return 2 * _INTERVAL if self._is_terminal else None

    def show(self, done: int, bytes_done: int, failed: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if not (self._is_terminal or self._is_text) or (now < self._due and not last):
            return
        text = bar_text(done, self._total, bytes_done, self._bytes_total, now - self.begun, failed)
        if self._is_terminal:
            self._due = now + _INTERVAL
            print(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = True
        else:
            self._due = now + max(1.0, (now - self.begun) / 20)
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of its own, above."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False
