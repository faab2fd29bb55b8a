"""How many threads BLAS and OpenMP take in each worker: so many that all workers together have one for each core.

What the user has set wins: `worker_threads` over the environment, and the environment over our share.
"""

from collections.abc import Mapping

from shmexec import _core

GENERAL = "OMP_NUM_THREADS"  # where the others look if their own is not set
VARIABLES = (
    GENERAL,
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def variables(threads: int | None, workers: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What is to be set in the environment of each worker."""
    if threads is not None:
        return dict.fromkeys(VARIABLES, str(threads))
    if environment.get(GENERAL):
        return {}
    share = str(max(1, _core.usable_cores() // workers))
    return {name: share for name in VARIABLES if not environment.get(name)}
