"""Ctrl-C wherever the thread that submits may be: no call is lost, and no start of a worker; nobody waits for ever."""

import dis
import functools
import sys

import numpy as np
import sequencer

from shmexec import SharedExecutor
from shmexec.pool import feeder

# behind these Python looks for signals; but not when a function in Python returns
BEFORE = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}


@functools.cache
def looks_of(code):
    """Where a signal handler may run."""
    names = [(step.offset, step.opname) for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return {names[i][0] for i in range(1, len(names)) if names[i - 1][1] in BEFORE}


class Interrupting:
    """Raises KeyboardInterrupt in the feeder's code, where Python looks for signals for the nth time."""

    def __init__(self, number):
        self.left = number
        self.calling = None  # a function in Python

    def __call__(self, frame, event, arg):
        if frame.f_back.f_code.co_filename == feeder.__file__:
            self.calling = frame.f_back
        if frame.f_code.co_filename != feeder.__file__:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self.step

    def step(self, frame, event, arg):
        has_returned, self.calling = self.calling is frame, None
        if event == "opcode" and frame.f_lasti in looks_of(frame.f_code) and not has_returned:
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.step


def interrupted(executor, number):
    """Whether there is an nth place on the way of a call; the pool has nothing left to do then, and goes on."""
    interrupting = Interrupting(number)
    before = sys.gettrace()
    sys.settrace(interrupting)
    try:
        executor.submit(np.sum, np.ones(10))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    assert executor.submit(np.sum, np.ones(10)).result() == 10
    sequencer.wait_until(lambda: not any(executor._pool.counts()))
    return interrupting.left < 0


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
