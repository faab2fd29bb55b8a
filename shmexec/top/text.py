"""What was seen, as text: for `--once`, and for the rows of the live view."""

from collections.abc import Iterable, Sequence

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
        f"live {size(heap.live)} in {_count(heap.blocks, 'block')}, warm {size(heap.warm)}, free {size(heap.free)}, "
        f"{_count(heap.processes, 'process', 'processes')}"
    )


def traffic(heap: Heap) -> str:
    return f"by name {size(heap.by_name)}/s, copied {size(heap.copied)}/s"


def of_pool(pool: Pool) -> str:
    waiting = f"{pool.waiting} waiting"
    if pool.waiting:
        waiting += f" (some for {age(pool.waiting_seconds)})"
    workers = _count(len(pool.workers), "worker")
    return f"pool of {pool.pid}: {workers}, {pool.running} running, {pool.ahead} ahead, {waiting}"


def cells(worker: Worker) -> tuple[str, ...]:
    """One for each heading."""
    seconds = age(worker.seconds) if worker.state == "running" else ""
    return str(worker.pid or "-"), worker.state, seconds, str(worker.ahead or ""), worker.function


def age(seconds: float) -> str:
    """Short ones in ms or s, long ones as a clock shows them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """In binary units, as `shmexec ls`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.0f} {units[0]}" if count >= 100 or units[0] == "B" else f"{count:.1f} {units[0]}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
