"""Three hosts: bytes that cross between them, time against plain Dask, and one host killed in the middle.

The hosts are network namespaces on this machine, joined by a bridge and shaped to 1 Gbit/s each way, so it takes root:

    sudo python benchmarks/cluster.py [--pictures 24] [--side 1000] [--rounds 3]

All share this machine's cores: look at the ratio of the times, and at nothing of the time with a host killed.
(Its processes are killed; of one that loses its power Dask knows after `distributed.comm.timeouts.tcp`, 30 seconds.)
"""

import argparse
import itertools
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster

from shmexec import SharedExecutor
from shmexec.integrations.distributed import ClusterExecutor

HOSTS = (1, 2, 3)
NAME = "shxbench"
RATE = ("tbf", "rate", "1gbit", "burst", "256k", "latency", "50ms")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Hosts:
    """The namespaces, and a worker of Dask in each."""

    def __enter__(self) -> "Hosts":
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.__exit__()
        run("ip", "link", "add", NAME, "type", "bridge")
        run("ip", "addr", "add", "10.77.0.100/24", "dev", NAME)
        run("ip", "link", "set", NAME, "up")
        for host in HOSTS:
            space, inside, outside = f"{NAME}{host}", "eth0", f"{NAME}{host}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            run("ip", "link", "set", outside, "master", NAME, "up")
            run("tc", "qdisc", "add", "dev", outside, "root", *RATE)
            within = ("ip", "netns", "exec", space)
            run(*within, "ip", "addr", "add", f"10.77.0.{host}/24", "dev", inside)
            run(*within, "ip", "link", "set", "lo", "up")
            run(*within, "ip", "link", "set", inside, "up")
            run(*within, "tc", "qdisc", "add", "dev", inside, "root", *RATE)
        return self

    def start_worker(self, host: int, scheduler: str) -> None:
        options = ["--nworkers", "1", "--nthreads", "2", "--no-dashboard", "--host", f"10.77.0.{host}"]
        self.workers[host] = subprocess.Popen(
            ["ip", "netns", "exec", f"{NAME}{host}", sys.executable, "-m", "dask", "worker", scheduler, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, host: int) -> None:
        """All that runs on it, at once."""
        listed = subprocess.run(["ip", "netns", "pids", f"{NAME}{host}"], capture_output=True, text=True, check=False)
        for pid in listed.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        if host in self.workers:
            self.workers.pop(host).wait()

    def bytes_crossed(self) -> int:
        """That hosts received, from another or from where the program runs."""
        return sum(int(Path(f"/sys/class/net/{NAME}{host}/statistics/tx_bytes").read_text()) for host in HOSTS)

    def __exit__(self, *_: object) -> None:
        for host in HOSTS:
            self.kill(host)
            subprocess.run(["ip", "netns", "del", f"{NAME}{host}"], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "link", "del", NAME], stderr=subprocess.DEVNULL, check=False)


def correct(picture, dark, flat):
    clean = (picture - dark) / flat
    for row in clean:  # holds the GIL
        row -= np.median(row)
    return clean


def moved(before, after):
    return int(np.count_nonzero(np.abs(after - before) > 3.0))


def analyse(submit, stack, dark, flat, half_way=lambda: None):
    clean = [submit(correct, picture, dark, flat) for picture in stack]
    clean[len(clean) // 2].exception()
    half_way()
    return [one.result() for one in [submit(moved, *pair) for pair in itertools.pairwise(clean)]]


def plain_dask(client, stack, dark, flat):
    """As its documentation says it: inputs scattered, those that all need to all."""
    dark, flat = client.scatter([dark, flat], broadcast=True)
    return analyse(client.submit, client.scatter(stack), dark, flat)


def timed(hosts: Hosts, function: Callable[..., object], *arguments: object) -> tuple[object, float, int]:
    before, begun = hosts.bytes_crossed(), time.perf_counter()
    found = function(*arguments)
    return found, time.perf_counter() - begun, hosts.bytes_crossed() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rng = np.random.default_rng(7)
    shape = given.side, given.side
    figures: dict[str, list[tuple[float, int]]] = {"shmexec": [], "plain Dask": []}

    def data():
        """New each time, or the cluster would have it."""
        stack = [rng.poisson(20, shape).astype(float) for _ in range(given.pictures)]
        return stack, rng.normal(5, 1, shape), rng.uniform(0.5, 1.5, shape)

    with Hosts() as hosts, LocalCluster(n_workers=0, host="10.77.0.100", dashboard_address=":0") as cluster:
        for host in HOSTS:
            hosts.start_worker(host, cluster.scheduler_address)
        with Client(cluster) as client:
            client.wait_for_workers(len(HOSTS))
            with ClusterExecutor(client) as ex, SharedExecutor(2) as alone:
                analyse(ex.submit, *data())  # all is up
                for _ in range(given.rounds):
                    inputs = data()
                    here = analyse(alone.submit, *inputs)
                    there, seconds, crossed = timed(hosts, analyse, ex.submit, *inputs)
                    figures["shmexec"].append((seconds, crossed))
                    plain, seconds, crossed = timed(hosts, plain_dask, client, *inputs)
                    figures["plain Dask"].append((seconds, crossed))
                    assert here == there == plain
                inputs = data()
                here = analyse(alone.submit, *inputs)
                there, seconds, crossed = timed(hosts, analyse, ex.submit, *inputs, lambda: hosts.kill(HOSTS[-1]))
                left = len(client.scheduler_info(n_workers=-1)["workers"])
                print(f"one host killed in the middle, {left} left: {seconds:.2f} s, equal results: {here == there}")
    size = given.side**2 * 8
    processed = size * (3 * given.pictures + 2 * (given.pictures - 1))
    print(f"arrays given: {size * (given.pictures + 2) / 1e6:.0f} MB; arrays that calls took: {processed / 1e6:.0f} MB")
    for name, rounds in figures.items():
        seconds, crossed = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name:12} {seconds:6.2f} s   {crossed / 1e6:7.0f} MB crossed, {crossed / processed:.0%} of what was taken"
        )


if __name__ == "__main__":
    main()
