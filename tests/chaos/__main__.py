"""python -m tests.chaos --seconds N --seed S [--segment KIND]

Ends with one line of figures, and with status 0 if nothing was found. The torture runs in a process of its own, which
is killed itself now and then; what it leaves is looked for from outside.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid

import tests.chaos
from tests.chaos import residue
from tests.chaos.checker import Figures
from tests.kernel_memory import Account

LONGEST = 60.0  # seconds that one process lives
KILLED = 0.4  # of them are killed, after a few seconds
PATIENCE = 20.0  # workers have 10 seconds for their clean-up when their parent is dead


class Supervisor:
    """Starts the processes that are tortured, one after the other, and adds up."""

    def __init__(self, seed, segment):
        self.figures = Figures()
        self._random = random.Random(seed)
        self._seed = seed
        self._segment = segment
        self.account = ""  # where the figure of shared memory comes from

    def run(self, seconds):
        until, number = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0.5:
            is_killed = number > 0 and self._random.random() < KILLED
            life = self._random.uniform(1, 10) if is_killed else LONGEST
            if not is_killed and number == 0 and seconds < LONGEST:
                life = 0.8 * left
            self._live(min(life, left), number, is_killed)
            number += 1

    def _live(self, seconds, number, is_killed):
        with Account() as account:
            self.account = str(account)
            self._live_in(account, seconds, number, is_killed)

    def _live_in(self, account, seconds, number, is_killed):
        mark = f"SHMEXEC_CHAOS={uuid.uuid4().hex}"
        environment = {**os.environ, "SHMEXEC_SEGMENT": self._segment, **dict([mark.split("=")])}
        command = [sys.executable, "-W", "error", "-m", "tests.chaos.inside", "1e9" if is_killed else str(seconds)]
        seed = str(self._seed * 1000 + number)
        with tempfile.TemporaryFile("w+") as said:  # no pipe: who is left over would keep us waiting for its end
            inside = subprocess.Popen([*command, seed], env=environment, stdout=said, preexec_fn=account.join)
            try:
                inside.wait(seconds if is_killed else None)
            except subprocess.TimeoutExpired:
                inside.kill()
                inside.wait()
            said.seek(0)
            lines = said.read().splitlines()
        self.figures.parents += is_killed
        if lines:
            self.figures.add(Figures(**json.loads(lines[-1])))
        if inside.returncode not in ((-9,) if is_killed else (0, 1)):
            self._say(f"process {number} ended with {inside.returncode}")
            self.figures.hangs += inside.returncode == 3
            self.figures.wrong += inside.returncode != 3
        if left := residue.wait_gone(mark, PATIENCE):
            self._say(f"process {number} has left processes: {left}")
            self.figures.left += len(left)
        if is_killed and self._segment == "posix":  # its name stays if no worker outlives it, for the next who sweeps
            subprocess.run([sys.executable, "-m", "shmexec", "gc"], stdout=subprocess.DEVNULL, check=True)
        if memory := residue.memory(inside.pid):
            self._say(f"process {number} has left memory: {memory}")
        shmem = account.left()
        if shmem:
            self._say(f"process {number} has left {shmem:,} bytes of shared memory, {account}")
        self.figures.bytes += max(sum(memory.values()), shmem)

    def _say(self, text):
        print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=tests.chaos.__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--segment", default=os.environ.get("SHMEXEC_SEGMENT", "memfd"), help="the kind of the heap")
    options = parser.parse_args()
    begun = time.monotonic()
    supervisor = Supervisor(options.seed, options.segment)
    supervisor.run(options.seconds)
    figures = supervisor.figures
    print(
        f"{options.segment}, seed {options.seed}, {time.monotonic() - begun:.0f} s: {figures.rounds} rounds, "
        f"{figures.calls} calls, {figures.kills} kills of workers, {figures.parents} of parents; "
        f"{figures.failed} calls failed by their worker's death; wrong {figures.wrong}, hangs {figures.hangs}, "
        f"lost {figures.lost}, blocks left {figures.blocks}, processes and descriptors left {figures.left}, "
        f"kernel memory left {figures.bytes} ({supervisor.account})"
    )
    return 0 if figures.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
