"""Calls that count how often they are run, in shared memory: what was counted stays when the worker is killed."""

import time

import numpy as np

import shmexec

_runs = None


def come_up(runs):
    """The initializer of the pool."""
    global _runs
    _runs = runs


def run(number, function, *arguments):
    _runs[number] += 1
    return function(*arguments)


def double(number, x):
    """Of numbers only: a call that takes the fast way."""
    _runs[number] += 1
    return 2 * x


def total(number, array):
    _runs[number] += 1
    return float(array.sum())


def shrink(number, size, to):
    _runs[number] += 1
    array = np.ones(size)
    array.resize(to, refcheck=False)
    return array


def trim(number):
    _runs[number] += 1
    np.ones(1 << 21)
    shmexec.trim()


def report(number, text):
    _runs[number] += 1
    shmexec.report_progress(0.5)
    shmexec.report_progress(text)
    return text


def pass_gate(number, gate):
    """Until the caller has opened it."""
    _runs[number] += 1
    while not gate[0]:
        time.sleep(0.001)
    return number
