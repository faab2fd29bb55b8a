"""A progress bar in plain text: redrawn in a terminal, one line for each finished picture elsewhere."""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

_BAR = 16  # characters


class Progress:
    """Counts steps done out of `total`; writes to `stream`."""

    def __init__(self, label: str, total: int, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._total, self._stream, self._clock = label, total, stream, clock
        self._done = 0
        self._began = clock()
        self._in_place = stream.isatty()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._in_place:
            columns = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + self.line()[:columns].ljust(min(columns, 84)))
            self._stream.flush()

    def note_picture(self, name: str, outcome: str) -> None:
        if not self._in_place:
            print(f"{self._label}: {name} {outcome} ({self._done}/{self._total} steps)", file=self._stream)

    def finish(self) -> None:
        if self._in_place:
            self._stream.write("\n")

    def line(self) -> str:
        """The bar, what is done, the rate, and the time that is left at that rate."""
        elapsed = self._clock() - self._began
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else ""
        filled = _BAR * self._done // max(self._total, 1)
        bar = "#" * filled + "-" * (_BAR - filled)
        return f"{self._label:<20}[{bar}]  {self._done}/{self._total} steps  {rate:.1f} steps/s  {left}"
