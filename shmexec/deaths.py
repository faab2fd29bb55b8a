"""`shmexec.errors.WorkerDied`, apart from the others: it is an error of the standard library's pool."""

from concurrent.futures.process import BrokenProcessPool


class WorkerDied(BrokenProcessPool):
    """The worker process ended while it was running this call.

    Attributes
    ----------
    pid : int
        Of the worker that died.
    exitcode : int or None
        As `multiprocessing.Process.exitcode`: negative for a signal, 255 if nobody could learn it.
    call : str
        The name of the function that the call was for.
    traceback : str
        Where it was when it crashed, as `faulthandler` wrote it; empty if it ended in any other way.
    """

    __module__ = "shmexec.errors"

    def __init__(
        self, message: str, *, pid: int = 0, exitcode: int | None = None, call: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.call = call
        self.traceback = traceback

    def __reduce__(self) -> tuple[object, ...]:
        return _worker_died, (str(self), self.pid, self.exitcode, self.call, self.traceback)


def _worker_died(message: str, pid: int, exitcode: int | None, call: str, traceback: str = "") -> WorkerDied:
    return WorkerDied(message, pid=pid, exitcode=exitcode, call=call, traceback=traceback)
