"""The demo's progress bar."""

import io

from shmexec.demo.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_terminal_the_bar_is_redrawn_with_rate_and_remaining_time():
    now = iter([0.0, 5.0, 10.0])
    terminal = Terminal()
    progress = Progress("Pool", 40, terminal, clock=lambda: next(now))
    progress.advance(10)
    progress.note_picture("a.png", "done")
    progress.advance(10)
    progress.finish()
    drawn = terminal.getvalue()
    assert drawn.count("\r") == 2
    assert drawn.count("\n") == 1
    assert "[########--------]  20/40 steps  2.0 steps/s  10 s left" in drawn


def test_elsewhere_there_is_one_line_for_each_picture():
    stream = io.StringIO()
    progress = Progress("Pool", 40, stream)
    progress.advance(6)
    progress.note_picture("a.png", "done")
    progress.finish()
    assert stream.getvalue() == "Pool: a.png done (6/40 steps)\n"
