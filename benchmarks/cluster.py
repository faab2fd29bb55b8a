"""Three hosts: a script that runs there as it stands, hosts that are lost meanwhile, and time against plain Dask.

The hosts are network namespaces on this machine, their links shaped each way, so it takes root:

    sudo python benchmarks/cluster.py [script] [times] [--rounds 3] [--rate 1gbit] [--tcp-timeout 30] ...

`script`: the one of docs/cluster.md alone on this machine, on the three hosts, with one host killed in the middle (its
kernel closes the connections), and with one that loses its power in the middle (packets to it vanish). What it prints
has to be equal. `times`: two steps over pictures, against plain Dask in turn; bytes that cross between hosts. Default:
both.

All share this machine's cores: look at the ratio of the times.
"""

import argparse
import contextlib
import itertools
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dask
import numpy as np
from distributed import Client, LocalCluster
from hosts import HERE, HOSTS, Hosts, address

from shmexec import SharedExecutor
from shmexec.integrations.distributed import ClusterExecutor

PAGE = Path(__file__).parent.parent / "docs" / "cluster.md"
VICTIM = HOSTS[-1]


@contextlib.contextmanager
def three_hosts(rate: str) -> Iterator[tuple[Hosts, Client]]:
    """With a worker of Dask on each; the scheduler is here."""
    with Hosts(rate) as hosts, LocalCluster(n_workers=0, host=HERE, dashboard_address=":0") as cluster:
        for host in HOSTS:
            hosts.start_worker(host, cluster.scheduler_address)
        with Client(cluster) as client:
            client.wait_for_workers(len(HOSTS))
            yield hosts, client


# ---- the script of the page ----------------------------------------------------------------------


def run_script(path: Path, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[str, float, float]:
    """What it prints, its seconds, and the seconds after what happens meanwhile."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, path, *arguments], stdout=subprocess.PIPE, text=True) as running:
        meanwhile()
        since = time.perf_counter()
        assert running.stdout is not None
        printed = running.stdout.read()
    if running.returncode:
        raise SystemExit(f"the script failed: exit code {running.returncode}")
    return printed, time.perf_counter() - begun, time.perf_counter() - since


def lose_in_the_middle(hosts: Hosts, client: Client, lose: Callable[[Hosts, int], None]) -> None:
    """When the victim has computed something, and computes."""
    while True:
        held = [keys for where, keys in client.has_what().items() if f"{address(VICTIM)}:" in where]
        running = [keys for where, keys in client.processing().items() if f"{address(VICTIM)}:" in where]
        has_results = any(not str(key).startswith("shmexec-input") for keys in held for key in keys)
        if has_results and any(running):
            return lose(hosts, VICTIM)
        time.sleep(0.02)


def script(rate: str) -> None:
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert code is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stack.py")
        path.write_text(code[1])
        here, seconds, _ = run_script(path)
        print(here, end="")
        print(f"this machine alone{seconds:30.1f} s", flush=True)
        with three_hosts(rate) as (_, client):
            there, seconds, _ = run_script(path, client.scheduler.address)
        print(
            f"three hosts                               {seconds:6.1f} s; the same output: {here == there}", flush=True
        )
        for what, lose in ("is killed", Hosts.kill), ("loses its power", Hosts.cut_power):
            with three_hosts(rate) as (hosts, client):
                there, seconds, after = run_script(
                    path, client.scheduler.address, meanwhile=partial(lose_in_the_middle, hosts, client, lose)
                )
            print(
                f"{f'one of them {what} in the middle':40}  {seconds:6.1f} s, {after:.1f} s of them after that;"
                f" the same output: {here == there}",
                flush=True,
            )


# ---- against plain Dask --------------------------------------------------------------------------


def correct(picture, dark, flat):
    clean = (picture - dark) / flat
    for row in clean:  # holds the GIL
        row -= np.median(row)
    return clean


def moved(before, after):
    return int(np.count_nonzero(np.abs(after - before) > 3.0))


def analyse(submit, stack, dark, flat):
    clean = [submit(correct, picture, dark, flat) for picture in stack]
    return [one.result() for one in [submit(moved, *pair) for pair in itertools.pairwise(clean)]]


def plain_dask(client, stack, dark, flat):
    """As its documentation says it: inputs scattered, those that all need to all."""
    dark, flat = client.scatter([dark, flat], broadcast=True)
    return analyse(client.submit, client.scatter(stack), dark, flat)


def timed(hosts: Hosts, function: Callable[..., object], *arguments: object) -> tuple[object, float, int]:
    before, begun = hosts.bytes_crossed(), time.perf_counter()
    found = function(*arguments)
    return found, time.perf_counter() - begun, hosts.bytes_crossed() - before


def times(rate: str, pictures: int, side: int, rounds: int) -> None:
    rng = np.random.default_rng(7)
    figures: dict[str, list[tuple[float, int]]] = {"shmexec": [], "plain Dask": []}

    def data():
        """New each time, or the cluster would have it."""
        stack = [rng.poisson(20, (side, side)).astype(float) for _ in range(pictures)]
        return stack, rng.normal(5, 1, (side, side)), rng.uniform(0.5, 1.5, (side, side))

    with three_hosts(rate) as (hosts, client), ClusterExecutor(client) as ex, SharedExecutor(2) as alone:
        for turn in range(rounds + 1):
            inputs = data()
            here = analyse(alone.submit, *inputs)
            there, *of_shmexec = timed(hosts, analyse, ex.submit, *inputs)
            plain, *of_dask = timed(hosts, plain_dask, client, *inputs)
            assert here == there == plain
            if turn:  # before that, not all is up
                figures["shmexec"].append(tuple(of_shmexec))
                figures["plain Dask"].append(tuple(of_dask))
    size = side**2 * 8
    processed = size * (3 * pictures + 2 * (pictures - 1))
    print(f"arrays given: {size * (pictures + 2) / 1e6:.0f} MB; arrays that calls took: {processed / 1e6:.0f} MB")
    for name, rows in figures.items():
        print(name, *(f"{seconds:.2f} s" for seconds, _ in rows))
        seconds, crossed = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{name:12} {seconds:6.2f} s   {crossed / 1e6:7.0f} MB crossed, {crossed / processed:.0%} of what was taken"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="script|times")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", default="1gbit", help="of each host's link, as tc writes it")
    parser.add_argument("--tcp-timeout", type=int, default=30, help="Dask's distributed.comm.timeouts.tcp, seconds")
    given = parser.parse_args()
    unknown = set(given.parts) - {"script", "times"}
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)
    limit = f"{given.tcp_timeout}s"
    os.environ["DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"] = limit  # of the workers and of the script
    dask.config.set({"distributed.comm.timeouts.tcp": limit})  # of the scheduler
    if "script" in given.parts or not given.parts:
        script(given.rate)
    if "times" in given.parts or not given.parts:
        times(given.rate, given.pictures, given.side, given.rounds)


if __name__ == "__main__":
    main()
