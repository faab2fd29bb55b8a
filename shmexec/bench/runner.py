"""One peer in a process of its own: reads what to measure, a JSON line each, and answers in the same way.

python -m shmexec.bench.runner PEER WORKERS
python -m shmexec.bench.runner PEER WORKERS startup
python -m shmexec.bench.runner PEER WORKERS memory BYTES
"""

import time

_BEGUN = time.perf_counter()

import json  # noqa: E402  (the clock runs)
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

_ARRAYS = 8


def serve(name: str, workers: int) -> None:
    """Measure what standard input asks for, until it ends."""
    from shmexec.bench.peers import PEERS
    from shmexec.bench.workloads import WORKLOADS

    answers = sys.stdout
    sys.stdout = sys.stderr  # what a package prints is no answer
    peer = PEERS[name](workers)
    prepared: dict[tuple[str, int], Any] = {}
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            key = asked["workload"], asked["size"]
            try:
                if key not in prepared:
                    prepared.clear()  # one at a time: its arrays take memory
                    prepared[key] = WORKLOADS[key[0]].prepare(peer, key[1])
                    prepared[key]()  # the first is for the caches
                answer = {"seconds": prepared[key]()}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        prepared.clear()
        peer.close()


def startup(name: str, workers: int) -> float:
    """Seconds from the start of the interpreter's work to the first answer."""
    from shmexec.bench import tasks
    from shmexec.bench.peers import PEERS

    peer = PEERS[name](workers)
    peer.call(tasks.nothing, 1)
    spent = time.perf_counter() - _BEGUN
    peer.close()
    return spent


def memory(name: str, workers: int, size: int) -> float:
    """Peak of the process tree's PSS while arrays go in and come out, above the idle pool's, over their size."""
    import numpy as np

    from shmexec.bench import tasks
    from shmexec.bench.peers import PEERS
    from shmexec.measure import PeakMemory

    peer = PEERS[name](workers)
    peer.map(tasks.make, [1 << 16] * _ARRAYS)
    with PeakMemory() as idle:
        time.sleep(0.2)
    with PeakMemory() as peak:
        kept = [peer.keep(np.ones(size // 8)) for _ in range(_ARRAYS)]
        results = peer.map(tasks.double, kept)
    over = ((peak.peak or 0) - (idle.peak or 0)) / (2 * _ARRAYS * size)
    del kept, results
    peer.close()
    return over


def main(arguments: Sequence[str]) -> int:
    name, workers, *rest = arguments
    if not rest:
        serve(name, int(workers))
    elif rest[0] == "startup":
        print(json.dumps({"seconds": startup(name, int(workers))}))
    else:
        print(json.dumps({"seconds": memory(name, int(workers), int(rest[1]))}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
