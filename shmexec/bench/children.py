"""A peer's process tree, from outside: asked line by line, and ended with all that it started.

Guarantees: after `end` no process of the tree is left, whatever the peer forgets (Ray has daemons of its own).
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from shmexec.measure import process_tree

GRACE = 5.0  # seconds for a peer to close


class Child:
    """A peer in its process, which starts as it is asked for the first time."""

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "shmexec.bench.runner", name, str(workers)]
        self._process: subprocess.Popen[bytes] | None = None
        self._tree: dict[int, str] = {}

    @property
    def is_fresh(self) -> bool:
        return self._process is None

    def ask(self, question: dict[str, Any], patience: float | None = None) -> dict[str, Any]:
        """The answer; an error in its place, also if none comes within so many seconds. It may have ended then."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return self._gone(process)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                self.kill()
                return {"error": f"ended, there was no answer within {patience:.1f} s", "ended": True}
        line = process.stdout.readline()  # answers are written as whole lines
        if not line:
            return self._gone(process)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
            )
        return self._process

    def _gone(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        return {"error": f"its process ended with status {process.wait()}", "ended": True}

    def close(self) -> None:
        """Let it end by itself: no more questions."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._tree = _identities(process_tree(self._process.pid))
        try:
            self._process.stdin.close()
        except OSError:  # it is gone
            pass

    def end(self, deadline: float | None = None) -> int:
        """After `close`: wait for it, and kill what is left of its tree then. How many that were."""
        if self._process is None:
            return 0
        if deadline is None:
            deadline = time.monotonic() + GRACE
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        while (left := self._left()) and time.monotonic() < deadline:  # daemons that see that their parent has gone
            time.sleep(0.02)
        self._kill(left)
        self._release()
        return len(left)

    def kill(self) -> None:
        """At once, with all that it has started."""
        if self._process is None:
            return
        self._tree = _identities(process_tree(self._process.pid))
        self._kill(list(self._tree))
        self._release()

    def _kill(self, pids: list[int]) -> None:
        assert self._process is not None
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        deadline = time.monotonic() + GRACE
        while self._left() and time.monotonic() < deadline:  # the kernel kills when it comes to it
            time.sleep(0.005)

    def _release(self) -> None:
        assert self._process is not None
        for stream in self._process.stdin, self._process.stdout:
            assert stream is not None
            try:
                stream.close()
            except OSError:  # nobody reads what was written
                pass

    def _left(self) -> list[int]:
        return [pid for pid, began in self._tree.items() if _began(pid) == began]


def _identities(pids: list[int]) -> dict[int, str]:
    return {pid: began for pid in pids if (began := _began(pid))}


def _began(pid: int) -> str:
    """When the process began; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _environment() -> dict[str, str]:
    """One thread for each worker's BLAS: the peers would differ in how many they start. Nobody reports its use."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return threads | {"RAY_USAGE_STATS_ENABLED": "0"} | os.environ
