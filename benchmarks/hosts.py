"""Three hosts: network namespaces on this machine, joined by a bridge, shaped each way. It takes root."""

import os
import signal
import subprocess
import sys
from pathlib import Path

HOSTS = (1, 2, 3)
HERE = "10.77.0.100"  # where the program and the scheduler run
_NAME = "shxbench"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _try(*command: str) -> None:
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def address(host: int) -> str:
    """Of the host."""
    return f"10.77.0.{host}"


class Hosts:
    """The namespaces, and a worker of Dask in each that is started."""

    def __init__(self, rate: str) -> None:
        self._shape = ("tbf", "rate", rate, "burst", "256k", "latency", "50ms")

    def __enter__(self) -> "Hosts":
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self.__exit__()
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        _run("ip", "link", "add", _NAME, "type", "bridge")
        _run("ip", "addr", "add", f"{HERE}/24", "dev", _NAME)
        _run("ip", "link", "set", _NAME, "up")
        for host in HOSTS:
            space, inside, outside = f"{_NAME}{host}", "eth0", f"{_NAME}{host}"
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            _run("ip", "link", "set", outside, "master", _NAME, "up")
            _run("tc", "qdisc", "add", "dev", outside, "root", *self._shape)
            within = ("ip", "netns", "exec", space)
            _run(*within, "ip", "addr", "add", f"{address(host)}/24", "dev", inside)
            _run(*within, "ip", "link", "set", "lo", "up")
            _run(*within, "ip", "link", "set", inside, "up")
            _run(*within, "tc", "qdisc", "add", "dev", inside, "root", *self._shape)

    def start_worker(self, host: int, scheduler: str) -> None:
        """Of Dask, with two threads, under a nanny."""
        options = ["--nworkers", "1", "--nthreads", "2", "--no-dashboard", "--host", address(host)]
        self._workers[host] = subprocess.Popen(
            ["ip", "netns", "exec", f"{_NAME}{host}", sys.executable, "-m", "dask", "worker", scheduler, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, host: int) -> None:
        """All that runs on it, at once; its kernel closes the connections."""
        listed = subprocess.run(["ip", "netns", "pids", f"{_NAME}{host}"], capture_output=True, text=True, check=False)
        for pid in listed.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        if host in self._workers:
            self._workers.pop(host).wait()

    def cut_power(self, host: int) -> None:
        """It is gone from one moment to the next: nobody hears anything of it any more, not that it is gone either."""
        _run("ip", "link", "set", f"{_NAME}{host}", "down")
        self.kill(host)

    def bytes_crossed(self) -> int:
        """That hosts received, from another or from where the program runs."""
        return sum(int(Path(f"/sys/class/net/{_NAME}{host}/statistics/tx_bytes").read_text()) for host in HOSTS)

    def __exit__(self, *_: object) -> None:
        for host in HOSTS:
            self.kill(host)
            _try(
                "ip", "link", "del", f"{_NAME}{host}"
            )  # the kernel would do it some time after the end of the namespace
            _try("ip", "netns", "del", f"{_NAME}{host}")
        _try("ip", "link", "del", _NAME)
