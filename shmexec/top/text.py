"""What was seen, as text: for `--once`, and for the rows of the live view."""

from collections.abc import Iterable, Sequence

from shmexec.quantities import binary_size, clock
from shmexec.top.looking import Heap, Pool, Worker

HEADINGS = ("PID", "STATE", "FOR", "AHEAD", "FUNCTION")


def lines(heaps: Sequence[Heap]) -> Iterable[str]:
    """All of it."""
    yield summary(heaps)
    for heap in heaps:
        yield ""
        yield f"heap of {heap.pid or 'nobody'}, {heap.kind}: {heap.command[:70]}"
        yield f"  {memory(heap)}"
        yield f"  {traffic(heap)}"
        for pool in heap.pools:
            yield f"  {of_pool(pool)}"
            row = "    {:>8}  {:<8}  {:>9}  {:>5}  {}"
            yield row.format(*HEADINGS)
            for worker in pool.workers:
                yield row.format(*cells(worker)).rstrip()


def summary(heaps: Sequence[Heap]) -> str:
    pools = [pool for heap in heaps for pool in heap.pools]
    return ", ".join(
        (
            _count(len(heaps), "heap"),
            _count(len(pools), "pool"),
            _count(sum(len(pool.workers) for pool in pools), "worker"),
            f"{_count(sum(pool.running for pool in pools), 'call')} running",
            f"{sum(pool.waiting + pool.ahead for pool in pools)} waiting",
        )
    )


def memory(heap: Heap) -> str:
    return (
        f"live {binary_size(heap.live)} in {_count(heap.blocks, 'block')}, warm {binary_size(heap.warm)}, "
        f"free {binary_size(heap.free)}, "
        f"{_count(heap.processes, 'process', 'processes')}"
    )


def traffic(heap: Heap) -> str:
    return f"by name {binary_size(heap.by_name)}/s, copied {binary_size(heap.copied)}/s"


def of_pool(pool: Pool) -> str:
    waiting = f"{pool.waiting} waiting"
    if pool.waiting:
        waiting += f" (some for {clock(pool.waiting_seconds)})"
    workers = _count(len(pool.workers), "worker")
    return f"pool of {pool.pid}: {workers}, {pool.running} running, {pool.ahead} ahead, {waiting}"


def cells(worker: Worker) -> tuple[str, ...]:
    """One for each heading."""
    seconds = clock(worker.seconds) if worker.state == "running" else ""
    return str(worker.pid or "-"), worker.state, seconds, str(worker.ahead or ""), worker.function


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
