"""The live view: by rich, if that is installed, else plain text that is drawn again; and a picture of it."""

import contextlib
import io
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from shmexec.top import text
from shmexec.top.looking import Heap

_STYLES = {"running": "bold green", "starting": "yellow", "idle": "dim"}


def has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def show(find: Callable[[], Sequence[Heap]], interval: float) -> None:
    """Until q is pressed, or Ctrl-C."""
    with _keys() as wait_key, _rich_screen() if has_rich() else _plain_screen() as draw:
        while True:
            draw(find())
            if wait_key(interval) in ("q", "Q"):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What waits for a key, so many seconds at most; empty if none was pressed."""
    import termios
    import tty

    stdin = sys.stdin
    if not stdin.isatty():
        yield lambda seconds: select.select([], [], [], seconds) and ""
        return
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        yield lambda seconds: stdin.read(1) if select.select([stdin], [], [], seconds)[0] else ""
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _plain_screen() -> Iterator[Callable[[Sequence[Heap]], None]]:
    def draw(heaps: Sequence[Heap]) -> None:
        shown = [f"{line}\x1b[K" for line in text.lines(heaps)]
        sys.stdout.write(
            "\x1b[H" + "\n".join([*shown, "", 'q ends it; pip install "shmexec[top]" makes it nicer\x1b[K']) + "\x1b[J"
        )
        sys.stdout.flush()

    sys.stdout.write("\x1b[?1049h\x1b[?25l")  # another screen, without a cursor
    try:
        yield draw
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextlib.contextmanager
def _rich_screen() -> Iterator[Callable[[Sequence[Heap]], None]]:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        yield lambda heaps: live.update(_drawn(heaps), refresh=True)


def _drawn(heaps: Sequence[Heap]) -> Any:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    panels: list[Any] = [Text(f"shmexec top: {text.summary(heaps)}", style="bold")]
    for heap in heaps:
        parts: list[Any] = [Text(text.memory(heap), style="cyan"), Text(text.traffic(heap), style="cyan")]
        for pool in heap.pools:
            table = Table(title=Text(text.of_pool(pool)), title_justify="left", box=None, pad_edge=False, expand=True)
            for heading in text.HEADINGS:
                right = heading in ("PID", "FOR", "AHEAD")
                table.add_column(
                    heading, justify="right" if right else "left", ratio=1 if heading == "FUNCTION" else None
                )
            for worker in pool.workers:
                table.add_row(*map(Text, text.cells(worker)), style=_STYLES[worker.state])
            parts.append(table)
        panels.append(Panel(Group(*parts), title=Text(f"{heap.pid} {heap.command[:60]}"), title_align="left"))
    return Group(*panels)


def save_picture(heaps: Sequence[Heap], path: str) -> None:
    """As SVG, which asks nobody for fonts; ImportError without rich."""
    from rich.console import Console

    console = Console(record=True, width=92, file=io.StringIO())
    console.print(_drawn(heaps))
    drawing = re.sub(r',\s*url\([^)]*\) format\("[^"]*"\)', "", console.export_svg(title="shmexec top"))
    # rich reckons with 12.2 a letter, and says so (textLength); this is for viewers that do not look at it
    drawing = drawing.replace("font-size: 20px", "font-size: 20.3px")
    with open(path, "w", encoding="utf-8") as file:
        file.write(drawing)
