"""How much shared memory a tree of processes has in the kernel, whatever other programs do.

A control group of its own tells, for what it was charged stays charged when its processes are gone. Where none can be
made it is the figure of the whole machine, which others move too: then little can be told.
"""

import errno
import itertools
import os
import time
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20

_numbers = itertools.count()


def machine():
    """Bytes of shared memory of the whole machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/meminfo does not tell")


class Account:
    """Of the processes that join it, and of all their descendants.

    Attributes
    ----------
    tolerance : int
        Bytes that mean nothing: the kernel counts in batches, and others use the machine.
    """

    def __init__(self):
        self._group = _make_group()
        self.tolerance = 64 * MIB if self._group is None else MIB
        self._before = self._now()

    def join(self):
        """This process, and what it starts from now on."""
        if self._group is not None:
            (self._group / "cgroup.procs").write_text(str(os.getpid()))

    def left(self, patience=30.0):
        """Bytes that there are more than at first, and are not gone after so many seconds; 0 within the tolerance."""
        until = time.monotonic() + patience
        while (more := self._now() - self._before) > self.tolerance and time.monotonic() < until:
            time.sleep(0.05)
        return more if more > self.tolerance else 0

    def close(self):
        """The group goes, as soon as all who were in it are gone: the last may just be ending."""
        until = time.monotonic() + 10
        while self._group is not None:
            try:
                self._group.rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < until:
                    time.sleep(0.01)
                    continue
            self._group = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __str__(self):
        return "of the whole machine" if self._group is None else "of a control group"

    def _now(self):
        return machine() if self._group is None else _charged(self._group)


def _charged(group):
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith("shmem "):
            return int(line.split()[1])
    raise OSError(f"{group}/memory.stat does not tell")


def _make_group():
    parent = GROUPS if (GROUPS / "cgroup.controllers").exists() else GROUPS / "memory"
    group = parent / f"shmexec-account-{os.getpid()}-{next(_numbers)}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        _charged(group)
        if not os.access(group / "cgroup.procs", os.W_OK):
            raise PermissionError(group)
    except OSError:  # without the controller of memory, or only to be looked at
        group.rmdir()
        return None
    return group
