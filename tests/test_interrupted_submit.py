"""Ctrl-C wherever the thread that submits or cancels may be: no call is lost, nor the start of a worker."""

import dis
import functools
import signal
import sys

import numpy as np
import pytest
import sequencer
import tasks

from shmexec import SharedExecutor
from shmexec.pool import feeder, fork_server, futures, launcher, limits, pool

# behind these Python looks for signals; but not when a function in Python returns
BEFORE = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}


@functools.cache
def looks_of(code):
    """Where a signal handler may run."""
    names = [(step.offset, step.opname) for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return {names[i][0] for i in range(1, len(names)) if names[i - 1][1] in BEFORE}


class Interrupting:
    """Raises KeyboardInterrupt in the code of these modules, where Python looks for signals for the nth time."""

    def __init__(self, number, *modules):
        self.left = number
        self.files = {module.__file__ for module in modules}
        self.calling = set()  # frames, of functions in Python that they call

    def __call__(self, frame, event, arg):
        if frame.f_back is not None and frame.f_back.f_code.co_filename in self.files:
            self.calling.add(frame.f_back)
        if frame.f_code.co_filename not in self.files:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self.step

    def step(self, frame, event, arg):
        has_returned = frame in self.calling
        self.calling.discard(frame)
        if event == "opcode" and frame.f_lasti in looks_of(frame.f_code) and not has_returned:
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.step


def is_interrupted(interrupting, function, *args):
    """Call it; whether there is an nth place on its way."""
    before = sys.gettrace()
    sys.settrace(interrupting)
    try:
        function(*args)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupting.left < 0


def interrupted(executor, number):
    """Whether there is an nth place on the way of a call; the pool has nothing left to do then, and goes on."""
    found = is_interrupted(Interrupting(number, feeder), executor.submit, np.sum, np.ones(10))
    assert executor.submit(np.sum, np.ones(10)).result() == 10
    sequencer.wait_until(lambda: not any(executor._pool.counts()))
    return found


def test_ctrl_c_loses_no_call_wherever_it_comes():
    number = 0
    with SharedExecutor(1) as executor:
        executor.submit(np.sum, np.ones(10)).result()
        while interrupted(executor, number):
            number += 1
    assert number > 5


def test_ctrl_c_loses_no_start_of_a_worker_wherever_it_comes():
    number, found = 0, True
    with SharedExecutor(1) as kept:  # with it the fork server
        kept.submit(abs, 1).result()
        while found:
            with SharedExecutor(1) as executor:
                found = interrupted(executor, number)
                number += found
    assert number > 5


def test_ctrl_c_leaves_no_call_half_cancelled_wherever_it_comes(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    number, found = 0, True
    while found:
        lonely.submit(tasks.pass_gates, begun, leave)
        begun.wait_open()
        future = lonely.submit(np.sum, np.ones(100_000))  # copied: its future runs
        behind = lonely.submit(str, future)
        found = is_interrupted(Interrupting(number, pool, limits, futures), lonely.cancel, future)
        number += found
        leave.open()
        sequencer.wait_until(lambda: not any(lonely._pool.counts()))
        assert future.done()
        assert behind.done()
    assert number > 20


PLACES = {
    "the fork server has been spawned": (fork_server._util, "spawnv_passfds", None),
    "the worker has been told what to be": (launcher, "send_descriptors", None),
    "the worker has been spawned": (launcher._util, "spawnv_passfds", "spawn"),
    "the worker has been forked": (launcher, "adopt", "fork"),
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_in_a_start_leaves_no_process_that_nobody_knows_of(make_executor, monkeypatch, place):
    """What is left behind is looked at after each test."""
    module, name, method = PLACES[place]
    real, interrupted = getattr(module, name), []

    def interrupting(*args):
        made = real(*args)
        if not interrupted:
            interrupted.append(place)
            signal.raise_signal(signal.SIGINT)
        return made

    def make():
        return make_executor(2, method, preload=["colorsys"])

    monkeypatch.setattr(module, name, interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            make().submit(tasks.double, 1).result()
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted
    executor = make()
    assert [executor.submit(tasks.double, i).result() for i in range(4)] == [0, 2, 4, 6]
    assert executor.stats().workers_died == 0
