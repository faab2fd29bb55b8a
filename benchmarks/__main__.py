"""`python -m benchmarks`: the suite that `shmexec bench` runs, with the same options."""

import sys

from shmexec.__main__ import main

sys.exit(main(["bench", *sys.argv[1:]]))
