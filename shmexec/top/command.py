"""`shmexec top`: once, as text or JSON, or live."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from shmexec.top import screen, text
from shmexec.top.looking import Heap, Look, look, with_rates

DONE, NOT_STARTED = 0, 2


def run_top(options: argparse.Namespace) -> int:
    """The exit status."""
    find = _finder()
    if options.picture is not None and not screen.has_rich():
        print('shmexec top: --picture needs rich: pip install "shmexec[top]"', file=sys.stderr)
        return NOT_STARTED
    if not (options.once or options.json or options.picture) and sys.stdout.isatty():
        try:
            screen.show(find, options.interval)
        except KeyboardInterrupt:
            pass
        return DONE
    find()
    time.sleep(options.interval)  # rates take two looks
    heaps = find()
    if options.json:
        json.dump([asdict(heap) for heap in heaps], sys.stdout, indent=1)
        print()
    elif options.picture is None:
        print("\n".join(text.lines(heaps)))
    if options.picture is not None:
        try:
            screen.save_picture(heaps, options.picture)
        except OSError as error:
            print(f"shmexec top: {options.picture} cannot be written: {error.strerror}", file=sys.stderr)
            return NOT_STARTED
    return DONE


def _finder() -> Callable[[], tuple[Heap, ...]]:
    """Gives the heaps, with what has crossed since it was last called."""
    last: list[Look] = []

    def find() -> tuple[Heap, ...]:
        last.append(look())
        del last[:-2]
        return with_rates(last[0], last[-1])

    return find
