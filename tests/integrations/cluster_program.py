"""A program of its own with a cluster of two workers under nannies; prints what happened there, as JSON."""

import asyncio
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import dask
import numpy as np
from distributed import Client, LocalCluster
from sequencer import wait_until

import shmexec
from shmexec.integrations.distributed import ClusterExecutor

BIG = np.arange(300_000.0)
PAGE = Path(__file__).parent.parent.parent / "docs" / "cluster.md"


def error_of(function, *args):
    try:
        return f"no error: {function(*args)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def write_into(array):
    array[:10] = -1.0
    return float(array.sum())


def scale(array, factor):
    return array * factor


class Nested:
    def __init__(self, *values):
        self.values = values


def sum_of(nested):
    return float(sum(np.sum(value) for value in nested.values))


def inputs(client):
    return sorted(key for key in client.who_has() if key.startswith("shmexec-input"))


def same_script(client, ex):
    """The one of the page, as it stands, on this machine and on the cluster; what it prints."""
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    path = Path("stack.py")
    path.write_text(code[1])
    commands = [sys.executable, path], [sys.executable, path, client.scheduler.address]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    return [one.communicate()[0] for one in running]


def by_name(client, ex):
    before = ex.stats()
    made = [ex.submit(scale, BIG, factor) for factor in range(8)]
    totals = [ex.submit(np.sum, one) for one in made]
    values = [float(one.result()) for one in totals]
    sent, stats = inputs(client), ex.stats()
    copied = sum(stats[a].bytes_copied_in + stats[a].bytes_copied_out for a in stats)
    copied -= sum(before[a].bytes_copied_in + before[a].bytes_copied_out for a in stats)
    return {
        "right": values == [float(BIG.sum()) * factor for factor in range(8)],
        "sent": len(sent),
        "fetched": sum("_result" in vars(one) and isinstance(one._result, np.ndarray) for one in made),
        "by name": sum(stats[a].bytes_by_name_out - before[a].bytes_by_name_out for a in stats) >= 8 * BIG.nbytes,
        "arrays copied by pools": copied // BIG.nbytes,
    }


def own(client, ex):
    written = [ex.submit(write_into, BIG).result() for _ in range(3)]
    nested = ex.submit(sum_of, Nested(BIG, ex.submit(scale, BIG, 2), 1.0)).result()
    changed = BIG.copy()
    first = ex.submit(np.sum, changed)
    changed[0] = 1e6
    second = ex.submit(np.sum, changed)
    return {
        "written": [value == written[0] for value in written],
        "nested": nested == float(BIG.sum()) * 3 + 1,
        "changed": second.result() - first.result(),
    }


def maps(client, ex):
    seen = []
    return {
        "plain": list(ex.map(pow, [2, 3, 4], [5, 6, 7])),
        "chunks": list(ex.map(str, range(7), chunksize=3, progress=lambda done, total: seen.append([done, total]))),
        "progress": max(seen),
        "any order": sorted(ex.map(abs, range(-4, 0), ordered=False, buffersize=2)),
        "error": error_of(lambda: list(ex.map(lambda x: 1 / x, [1, 0]))),
    }


def failures(client, ex):
    return {
        "timeout": error_of(ex.options(timeout=0.2).submit(signal.pause).result),
        "death": error_of(ex.submit(os._exit, 3).result),
        "through": error_of(ex.submit(abs, ex.submit(divmod, 1, 0)).result),
        "not callable": error_of(ex.submit, 3),
        "client": error_of(ClusterExecutor, 3),
        "goes on": ex.options(retries=1).submit(abs, -3).result(),
    }


def plugin(client, ex):
    ClusterExecutor(client).shutdown()  # the pools that are there stay
    with dask.annotate(executor="shmexec"):
        inside = client.submit(os.getpid, pure=False).result()
    return {
        "daemonic": list(client.run(lambda: multiprocessing.current_process().daemon).values()),
        "in a process of ours": inside not in client.run(os.getpid).values(),
    }


def not_waiting(client, ex):
    """Inputs do not come through until they may."""
    may, scatter = threading.Event(), client.scatter

    async def scatter_late(*args, **options):
        while not may.is_set():
            await asyncio.sleep(0.01)
        return await scatter(*args, **options)

    client.scatter = scatter_late
    array = BIG + 0.5
    total = ex.submit(np.sum, array)
    after = ex.submit(float, total)
    given_up = ex.submit(np.sum, array)
    found = {"small": ex.submit(abs, -3).result(), "done": total.done(), "cancelled": given_up.cancel()}
    array[:] = 0
    may.set()
    del client.scatter
    found["right"] = total.result() == after.result() == float((BIG + 0.5).sum())
    return found


def reports(client, ex):
    seen, folder = [], str(Path.cwd())
    future = ex.submit(report_and_wait, folder, "go on")
    wait_until(lambda: future.progress == 0.5)
    Path("go on").touch()
    future.result()

    def show(done, total):
        seen.append(done)
        if done == 2.5:  # two items of the chunk, and half of the third
            Path("go on 2").touch()

    values = list(ex.map(report_and_wait, [folder] * 3, ["go on", "go on", "go on 2"], chunksize=3, progress=show))
    return {"last": future.progress, "values": values, "most": max(seen)}


def report_and_wait(folder, name):
    shmexec.report_progress(0.5)
    wait_until(Path(folder, name).exists)
    shmexec.report_progress("nearly there")


def cancels(client, ex):
    Path("cancelled").mkdir()
    running = [ex.submit(begin, str(Path("cancelled").absolute()), value) for value in (BIG, BIG + 1)]
    wait_until(lambda: len(list(Path("cancelled").glob("begun-*"))) == 2)
    pids = {int(path.name.partition("-")[2]) for path in Path("cancelled").glob("begun-*")}
    found = {"left alone": running[0].cancel(), "ended": ex.cancel(running[1])}
    wait_until(lambda: len([pid for pid in pids if Path(f"/proc/{pid}").exists()]) == 1)
    Path("cancelled", "go").touch()
    wait_until(lambda: list(Path("cancelled").glob("over-*")))
    found["results"] = [error_of(one.result) for one in running]
    found["no future"] = error_of(ex.cancel, Future())
    with ClusterExecutor(client) as other:
        found["of another"] = error_of(other.options(retries=1).cancel, running[0])
    found["goes on"] = [ex.submit(abs, -n).result() for n in range(4)]
    return found


def lost(client, ex):
    made = [ex.submit(scale, BIG + factor, 2.0) for factor in range(6)]
    for one in made:
        one.exception()
    home = next(iter(client.who_has(made[0].in_cluster()).values()))[0]
    os.kill(client.run(os.getpid)[home], signal.SIGKILL)
    after = [ex.submit(np.sum, one) for one in made]
    return {
        "totals": [float(one.result()) == 2 * float((BIG + factor).sum()) for factor, one in enumerate(after)],
        "first": [float(one.result()[0]) for one in made],
    }


def lost_while_it_runs(client, ex):
    go = Path("go")
    running = ex.submit(begin, str(Path.cwd()), BIG)
    wait_until(lambda: list(Path().glob("begun-*")))
    home = next(address for address, keys in client.processing().items() if keys)
    os.kill(client.run(os.getpid)[home], signal.SIGKILL)
    go.touch()
    return float(running.result()) == float(BIG.sum())


def begin(folder, array):
    Path(folder, f"begun-{os.getpid()}").touch()
    wait_until(Path(folder, "go").exists)
    Path(folder, f"over-{os.getpid()}").touch()
    return array.sum()


def closed(client, ex):
    running = [ex.submit(signal.pause) for _ in range(4)]

    async def scatter_never(*args, **options):
        await asyncio.Event().wait()

    client.scatter = scatter_never
    running.append(ex.submit(np.sum, BIG + 0.25))
    client.close()
    return {
        "running": [error_of(one.result) for one in running],
        "submit": error_of(ex.submit, abs, 1),
        "new": error_of(ClusterExecutor, client),
        "after shutdown": (ex.shutdown(), error_of(ex.submit, abs, 1))[1],
    }


def closed_beside_another(client, ex):
    """The event loop goes on, for the other client."""
    own = Client(client.cluster)
    return closed(own, ClusterExecutor(own))


def main():
    logging.disable(logging.CRITICAL)
    found = {}
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        with Client(cluster) as client:
            ex = ClusterExecutor(client)
            for part in (
                same_script,
                by_name,
                own,
                not_waiting,
                maps,
                failures,
                reports,
                cancels,
                plugin,
                lost,
                lost_while_it_runs,
                closed_beside_another,
                closed,
            ):
                found[part.__name__] = part(client, ex)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
