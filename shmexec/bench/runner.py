"""One peer in a process of its own: reads what to measure, a JSON line each, and answers in the same way.

python -m shmexec.bench.runner PEER WORKERS

What needs a pool that has done nothing yet (`workloads.FRESH`) is asked first, in that order.
"""

import time

_BEGUN = time.perf_counter()

import json  # noqa: E402  (the clock runs)
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

_ARRAYS = 8


def serve(name: str, workers: int) -> None:
    """Measure what standard input asks for, until it ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a package prints is no answer
    peer: Any = None
    prepared: dict[tuple[str, int], Any] = {}
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            answer: dict[str, Any]
            try:
                if peer is None:
                    peer, started = start(name, workers)
                answer = {"seconds": started if asked["workload"] == "startup" else _measured(peer, asked, prepared)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        prepared.clear()
        if peer is not None:
            peer.close()


def start(name: str, workers: int) -> tuple[Any, float]:
    """The pool, and the seconds from the start of the interpreter's work to its first answer."""
    from shmexec.bench import tasks
    from shmexec.bench.peers import PEERS

    peer = PEERS[name](workers)
    peer.call(tasks.nothing, 1)
    return peer, time.perf_counter() - _BEGUN


def _measured(peer: Any, asked: dict[str, Any], prepared: dict[tuple[str, int], Any]) -> float:
    from shmexec.bench.timing import Effort
    from shmexec.bench.workloads import WORKLOADS

    if asked["workload"] == "memory":
        return memory(peer, asked["size"])
    if asked["workload"] == "second":
        return second(peer)
    if asked["workload"] == "import":
        return import_seconds(peer.module) / import_seconds("numpy")
    key = asked["workload"], asked["size"]
    if key not in prepared:
        prepared.clear()  # one at a time: its arrays take memory
        prepared[key] = WORKLOADS[key[0]].prepare(peer, key[1], Effort(**asked["effort"]))
    seconds: float = prepared[key]()
    return seconds


def memory(peer: Any, size: int) -> float:
    """Peak of the process tree's PSS while arrays go in and come out, above the idle pool's, over their size."""
    import numpy as np

    from shmexec.bench import tasks
    from shmexec.measure import PeakMemory

    peer.map(tasks.make, [1 << 16] * _ARRAYS)
    with PeakMemory() as idle:
        time.sleep(0.2)
    with PeakMemory() as peak:
        kept = [peer.keep(np.ones(size // 8)) for _ in range(_ARRAYS)]
        results = peer.map(tasks.double, kept)
        for result in results:  # a page that nobody has touched is nobody's
            float(result[:: 4096 // result.itemsize].sum())
    over = ((peak.peak or 0) - (idle.peak or 0)) / (2 * _ARRAYS * size)
    del kept, results
    return over


def second(peer: Any) -> float:
    """Seconds from the beginning of another pool to its first answer."""
    from shmexec.bench import tasks

    begun = time.perf_counter()
    other = type(peer)(peer.workers)
    try:
        other.call(tasks.nothing, 1)
        return time.perf_counter() - begun
    finally:
        other.close()


def import_seconds(module: str) -> float:
    """Of a new interpreter, the least of three."""
    program = f"from time import perf_counter as now; begun = now(); import {module}; print(now() - begun)"
    return min(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(3))


def main(arguments: Sequence[str]) -> int:
    name, workers = arguments
    serve(name, int(workers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
