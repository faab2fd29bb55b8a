"""How many threads BLAS and OpenMP take in this worker.

Some facts: a library reads its variable when it is loaded. A worker of the fork server, or a forked one, has NumPy's
BLAS before anybody can tell what the pool wants.
What this means for us: the variables are for what the user's code loads later, and for what it starts; what is loaded
is told (`native/threads.c`).
"""

import os
from collections.abc import Mapping

from shmexec import _core


def limit(variables: Mapping[str, str]) -> None:
    """Set these variables, and tell the libraries that are here what they and the rest of the environment say."""
    os.environ.update(variables)
    _core.limit_threads(
        _said("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS") or _core.usable_cores(),
        _said("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
        _said("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
        _said("OMP_NUM_THREADS"),
    )


def _said(*names: str) -> int:
    """What the first of these variables says that says something; 0: none does."""
    for name in names:
        number = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP's may be a list, by depth
        if number.isdecimal() and int(number) > 0:
            return min(int(number), 1024)
    return 0
