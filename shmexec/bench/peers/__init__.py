"""The peers: each as its users use it, behind one interface.

`how` says in the report what was done for arrays: an array goes in as a user of that package would pass it.
"""

import importlib.util

from shmexec.bench.peers.by_hand import ByHand
from shmexec.bench.peers.interface import Peer
from shmexec.bench.peers.others import Dask, Joblib, Mpire, Ray, Torch
from shmexec.bench.peers.ours import Ours, OursPlain
from shmexec.bench.peers.standard import MultiprocessingPool, Processes, Threads

PEERS: dict[str, type[Peer]] = {
    "shmexec": Ours,
    "shmexec-plain": OursPlain,
    "threads": Threads,
    "processes": Processes,
    "mp-pool": MultiprocessingPool,
    "by-hand": ByHand,
    "joblib": Joblib,
    "mpire": Mpire,
    "ray": Ray,
    "dask": Dask,
    "torch": Torch,
}


def missing(name: str) -> tuple[str, ...]:
    """The modules that this peer needs and that are not installed."""
    return tuple(module for module in PEERS[name].needs if importlib.util.find_spec(module) is None)
