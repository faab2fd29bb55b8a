"""One file, in a worker: read, call, write. What goes wrong becomes a report; only a death or a time limit does not."""

import contextlib
import errno
import os
import sys
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shmexec.batch import readers, writers
from shmexec.batch.errors import NotRead, NotWritten, reason, shown
from shmexec.batch.functions import find_function
from shmexec.batch.jobs import Report
from shmexec.batch.record import append, working

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Errand:
    """What a worker is told of a file. `previous`: what an earlier run has left of its result."""

    out: str
    run: str
    function: str
    settings: Mapping[str, Any]
    format: str
    path: str
    key: str
    size: int
    changed: int
    previous: tuple[str, ...]


def work(errand: Errand) -> Report:
    """Do it; in a worker."""
    try:
        with working(errand.out, errand.run) as scratch, contextlib.redirect_stdout(sys.stderr):
            function = find_function(errand.function)
            value = function(readers.read(errand.path), **errand.settings)
            return _keep(errand, value, os.path.join(scratch, uuid.uuid4().hex))
    except (NotRead, NotWritten) as error:
        return Report(error=reason(error))
    except Exception as error:
        return Report(error=reason(error), traceback=traceback.format_exc())


def _keep(errand: Errand, value: Any, temporary: str) -> Report:
    """Write it; the order is told in `record`."""
    outputs: tuple[str, ...] = ()
    written = 0
    try:
        if value is not None:
            kind = errand.format or writers.format_of(value)
            outputs = (f"{errand.key}.{kind}",)
            written = writers.write(value, kind, temporary)
        for output in errand.previous:
            writers.remove(os.path.join(errand.out, output))
        for output in outputs:
            os.makedirs(os.path.dirname(os.path.join(errand.out, output)), exist_ok=True)
        path = os.path.relpath(errand.path, errand.out)
        said = {"key": errand.key, "path": path, "size": errand.size, "changed": errand.changed, "outputs": outputs}
        append(errand.out, said)
        for output in outputs:
            os.rename(temporary, os.path.join(errand.out, output))
    except OSError as error:
        where = shown(os.path.join(errand.out, outputs[0] if outputs else errand.key))
        says = f"{where} cannot be written: {error.strerror or error}"
        return Report(error=says, ends_all=error.errno in _NO_ROOM)
    finally:
        writers.remove(temporary)
    return Report(outputs, written)
