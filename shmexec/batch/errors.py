"""What keeps the batch from starting, and what is said of what went wrong."""

import os
import traceback

_INSIDE = (os.path.dirname(__file__), os.path.dirname(os.__file__))


class NotStarted(Exception):
    """Nothing has been done; the message says why, and what to do."""


class NotRead(Exception):
    """A file that is not what it should be; the message says why."""


class NotWritten(Exception):
    """A result that cannot be written; the message says why."""


def reason(error: BaseException) -> str:
    """In one line: what happened, and, if it happened in the user's code, where."""
    if isinstance(error, (NotStarted, NotRead, NotWritten)):
        return str(error)
    says = " ".join(str(error).split())
    text = f"{type(error).__name__}: {says}" if says else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_INSIDE)]
    if frames:
        text += f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name})"
    return text


def shown(path: str) -> str:
    """A file name that a terminal can print: it may hold anything."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
