"""This package, as it is meant to be used and as it is used by code that does not know it."""

from typing import Any

from shmexec.bench.peers.interface import Array, FuturesPeer


class Ours(FuturesPeer):
    """This package."""

    module = "shmexec"
    how = "inputs are made shared once; results of plain NumPy"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        from shmexec import SharedExecutor

        self.executor = SharedExecutor(workers)

    def keep(self, array: Array) -> Array:
        from shmexec import share

        return share(array)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return {"arrays": [self.keep(array) for array in nested["arrays"]]}


class OursPlain(Ours):
    """This package, with arrays that nobody has shared."""

    how = "plain inputs, copied once by the pool"
    shares_kept = False

    def keep(self, array: Array) -> Array:
        return array

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return nested
