"""How a worker ends, under all start methods: what ``sys.exit`` would run, runs; what it inherited does not.

Purpose: `serve` runs the worker's life, `leave` is its end: join threads, run exit handlers, let go of what
this process made, ``exit(3)`` with the interpreter whole.
Guarantees: `leave` never returns and nothing unwinds past it. SIGTERM ends a life once; one that comes during
the end is ignored. After the owner's death a worker is there for 1.5 seconds at most, or 10 if its clean-up runs.
Assumptions: `serve` and `leave` run in the main thread; SIGTERM and SIGINT have been blocked since the
process exists.

Rejected: ``Py_FinalizeEx``. In a forked child it destroys the parent's objects (temporary files, buffers),
copies every page of the interpreter, and crashes in 3.13.0 if the fork was not in the main thread; C exit
handlers that call Python crash after it.
"""

import atexit
import gc
import io
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from shmexec import _core
from shmexec.worker import outside

TERM_CODE = 128 + signal.SIGTERM  # as a shell reports it
EXIT_SECONDS = 5.0  # for C exit handlers: OpenBLAS's waits for its threads, which may wait for ours

_threading: Any = threading  # for what threading does not declare
_ending = False
_code = 0


# ---- the worker's life ----


def _on_term(signum: int, frame: types.FrameType | None) -> None:
    """Leave whatever is being done, once: whoever wants us to end may ask repeatedly."""
    global _ending
    if not _ending:
        _core.interrupt_serving(True)  # first: the handler of another signal may raise in between
        _ending = True
        _core.note_end()
        signal.siginterrupt(signum, False)  # C code that cleans up need not know of the others
        raise SystemExit(TERM_CODE)


def _on_int(signum: int, frame: types.FrameType | None) -> None:
    """Do nothing: Ctrl-C, or the end of the terminal, goes to the whole foreground group, and the parent decides.

    Not SIG_IGN: programs that a task starts would inherit it.
    """


def serve(work: Callable[[], None], owner: int, *, patience: float = 1.5, grace: float = 10.0) -> None:
    """Run ``work`` until it returns, SIGTERM comes or the owner is dead.

    A SIGTERM is repeated until Python has seen it: a call that is about to wait in C cannot sleep through it.

    The caller only has to unwind, then `leave`.

    Parameters
    ----------
    work : callable
        Lasts as long as the worker.
    owner : int
        A pidfd of the process that this one must not outlive.
    patience : float
        Seconds from the owner's death to ``_exit`` if the clean-up has not begun by then: a call in C does not come
        back, or keeps the GIL.
    grace : float
        The same, whatever the clean-up is doing.
    """
    global _is_forked
    _is_forked = False  # out of a worker, but to be one, too
    _core.interrupt_serving(_ending)
    gc.freeze()  # from now on gc.get_objects() lists only what is made while serving
    signal.signal(signal.SIGTERM, _on_term)
    signal.signal(signal.SIGINT, _on_int)
    signal.siginterrupt(signal.SIGINT, False)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _on_int)
        signal.siginterrupt(signal.SIGHUP, False)
    _register_at_fork()
    _core.watch_owner(owner, -1, signal.SIGTERM, patience, grace, TERM_CODE)
    _core.signal_bell(signal.SIGTERM, 0)  # rings nothing yet, but is heard by the thread that repeats it
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        work()
    finally:
        _begin_end()


def run_on_without_owner(pipe: int) -> None:
    """Let this process run, if it is stopped when its owner dies: only so can it end.

    Parameters
    ----------
    pipe : int
        A write end; the owner has the read end. It also does when the fork server, whose death this process could be
        told of, is dead already.
    """
    try:
        _core.continue_without_reader(pipe)
    except OSError:
        pass  # a sandbox: then the death of our parent process must do


def ring_on_term(address: int) -> None:
    """Let SIGTERM also increment the 32-bit word at ``address`` and wake who sleeps on it (0: no longer).

    To be called within `serve`.

    The loop that sleeps reads the word, calls `raise_if_ending` or any other Python, and sleeps on what it
    read: a SIGTERM that comes after Python looked for signals has changed the word, so the sleep ends at
    once.
    """
    _core.signal_bell(signal.SIGTERM, address)


def is_ending() -> bool:
    """Whether this process has been told to end, or ends.

    The loop that runs tasks asks after each: code that catches BaseException, or a ``__del__`` in which the
    signal was handled, swallows the SystemExit.
    """
    return _ending


def raise_if_ending(error: BaseException | None = None) -> None:
    """SystemExit, again, if this process has been told to end; or if it is none of the pool's: a task has forked it,
    and it has come back from that task, with this exception.
    """
    if _ending:
        raise SystemExit(TERM_CODE)
    if _is_forked:
        if error is None or isinstance(error, SystemExit):
            raise SystemExit(0 if error is None else error.code) from error
        raise error


_mask_before_fork = threading.local()
_is_forked = False  # out of a worker, by a task
_registered_at_fork = False  # also inherited: by a worker that a worker forked


def _register_at_fork() -> None:
    global _registered_at_fork
    if not _registered_at_fork:
        _registered_at_fork = True
        os.register_at_fork(before=_block_over_fork, after_in_parent=_unblock_after_fork, after_in_child=_be_no_worker)


def _block_over_fork() -> None:
    """Keep back what is sent to the new child while our handlers are still its own: Python would lose it."""
    _mask_before_fork.value = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))


def _unblock_after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask_before_fork.value)


def _be_no_worker() -> None:
    """In a process that a task forked: SIGTERM and Ctrl-C mean what they mean everywhere."""
    global _ending, _is_forked
    _ending, _is_forked = False, True
    _core.interrupt_serving(True)
    for signum, ours, usual in (
        (signal.SIGTERM, _on_term, signal.SIG_DFL),
        (signal.SIGINT, _on_int, signal.default_int_handler),
        (signal.SIGHUP, _on_int, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is ours:
            signal.signal(signum, usual)
    outside.disappear()
    _unblock_after_fork()


# ---- the end ----


def leave(code: int) -> NoReturn:
    """End this process, from whatever frame."""
    global _code
    _code = code
    for step in _begin_end, _threading._shutdown, _run_exit_handlers, _let_go_and_exit:
        try:
            step()
        except BaseException:
            report()
    os._exit(code)  # only if a step above could not do its work


def end_threads() -> None:
    """Tell those that have asked for it that it is the end, and wait for them; once. The life must be over."""
    try:
        _threading._shutdown()
    except BaseException:
        report()


def report() -> None:
    """Show the exception that is being handled, as the interpreter does at its end; raise nothing."""
    try:
        sys.excepthook(*sys.exc_info())
    except BaseException:
        pass  # there is nobody left to tell


def _begin_end() -> None:
    global _ending
    _ending = True  # from here on _on_term does nothing
    _core.interrupt_serving(True)
    _core.note_end()
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _on_term)  # anew, without the bell: its word may be unmapped soon
        signal.siginterrupt(signal.SIGTERM, False)


def _run_exit_handlers() -> None:
    atexit._run_exitfuncs()


def _let_go_and_exit() -> None:
    let_go()
    _core.deadline(EXIT_SECONDS, _code)
    _core.exit_now(_code)


def let_go() -> None:
    """Flush what this process left open, and drop what it put into modules and thread-locals: it is
    finalized.

    Out of reach, as Python promises nothing for them: objects that only class attributes, closures or caches
    hold.
    """
    threading.excepthook = lambda args: None  # daemon threads may miss what goes now
    sys.setswitchinterval(1e3)  # and better sleep
    mine = gc.get_objects()
    ids = set(map(id, mine))
    # type() throughout: isinstance() would ask a proxy for its __class__, which runs its author's code
    for thing in mine:
        if issubclass(type(thing), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
            _flush(thing)
    spaces = [vars(thing) for thing in mine if issubclass(type(thing), threading.local)]
    thing = None
    mine.clear()
    for space in [*spaces, *_module_spaces()]:
        for name in _core.made_here(space, ids):
            # modules, functions and classes stay: finalizers need them
            kept = issubclass(type(space[name]), (types.ModuleType, types.FunctionType, type))
            if not kept and not str(name).startswith("__"):
                space[name] = None
    gc.collect()
    _flush(sys.stdout)
    _flush(sys.stderr)


def _module_spaces() -> Iterator[dict[str, Any]]:
    """The namespaces of modules that are not the standard library's, and of the thread-locals in them."""
    for name, module in list(sys.modules.items()):
        if not issubclass(type(module), types.ModuleType):
            continue
        if name.partition(".")[0] in sys.stdlib_module_names and name != "__main__":
            continue
        space = object.__getattribute__(module, "__dict__")  # vars() would make a lazy module import itself
        yield space
        for value in list(space.values()):
            if type(value) is threading.local:
                yield vars(value)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass  # closed, or nobody reads it any more
