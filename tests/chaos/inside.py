"""The process whose workers die: `python -m tests.chaos.inside SECONDS SEED`. After each season a line of figures."""

import dataclasses
import json
import sys

from tests.chaos.runner import Chaos


def main(seconds, seed):
    def say(text):
        print(text, file=sys.stderr, flush=True)

    def report(figures):
        print(json.dumps(dataclasses.asdict(figures)), flush=True)

    chaos = Chaos(seed, say, report)
    try:
        chaos.run(seconds)
    except BaseException:
        report(chaos.figures)  # of the season that has failed, too
        raise
    return 0 if chaos.figures.is_good() else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
