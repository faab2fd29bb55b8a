"""Programs that were written for `ProcessPoolExecutor`, with one import changed."""

import compileall
import concurrent.futures
import re
from pathlib import Path

import pytest

from shmexec import SharedExecutor

# From the documentation of CPython, "ProcessPoolExecutor Example" of concurrent.futures; its examples are under the
# Zero-Clause BSD licence.
PRIMES = """
import {module}
import math

PRIMES = [
    112272535095293,
    112582705942171,
    112272535095293,
    115280095190773,
    115797848077099,
    1099726899285419]

def is_prime(n):
    if n < 2:
        return False
    if n == 2:
        return True
    if n % 2 == 0:
        return False

    sqrt_n = int(math.floor(math.sqrt(n)))
    for i in range(3, sqrt_n + 1, 2):
        if n % i == 0:
            return False
    return True

def main():
    with {module}.{name}() as executor:
        for number, prime in zip(PRIMES, executor.map(is_prime, PRIMES)):
            print('%d is prime: %s' % (number, prime))

if __name__ == '__main__':
    main()
"""


def test_the_example_of_pythons_documentation(script):
    theirs = script(PRIMES.format(module="concurrent.futures", name="ProcessPoolExecutor")).stdout
    assert theirs.count("is prime: True") == 5
    assert script(PRIMES.format(module="shmexec", name="SharedExecutor")).stdout == theirs


@pytest.fixture
def replaced(monkeypatch):
    """What takes the class from `concurrent.futures` gets ours; those that were made."""
    made = []

    class Recorded(SharedExecutor):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Recorded)
    yield made
    made.clear()


def test_the_standard_librarys_compileall(replaced, tmp_path, capsys):
    for i in range(20):
        (tmp_path / f"module{i}.py").write_text(f"value = {i}\n" if i != 7 else "value =\n")
    assert not compileall.compile_dir(str(tmp_path), workers=2, quiet=1)
    assert len(replaced) == 1
    assert len(list(tmp_path.rglob("*.pyc"))) == 19
    written = capsys.readouterr()
    assert "module" not in written.err


# What stands at the head of a program in place of the import that is changed, for programs that import the class in a
# module of a library. How many calls the pool has done is known when it is shut down.
CHANGED = """
import concurrent.futures, pathlib, shmexec

class Counted(shmexec.SharedExecutor):
    def shutdown(self, *args, **options):
        super().shutdown(*args, **options)
        pathlib.Path("calls").write_text(str(self.stats().calls_done))

concurrent.futures.ProcessPoolExecutor = Counted
"""

SOURCES = {f"module{i}.py": f"value  =  [ {i},{i} ]\n" for i in range(6)} | {"broken.py": "value = (\n"}


@pytest.fixture
def run_both(script, tmp_path):
    """Runs a program as it is and with ours, among the same files.

    Gives what both did, which has to be the same (how it ended, lines of its two outputs in any order, what is in the
    files), and how many calls our pool has done.
    """

    def run(program, files=()):
        outcomes = []
        for head in "", CHANGED:
            for name in files:
                (tmp_path / name).write_text(files[name])
            ran = script(head + program, check=False)
            texts = {name: (tmp_path / name).read_text() for name in files}
            outcomes.append((ran.returncode, *(sorted(t.splitlines()) for t in (ran.stdout, ran.stderr)), texts))
        theirs, ours = outcomes
        assert ours == theirs
        return *theirs, int(Path(tmp_path, "calls").read_text())

    return run


FORMATTERS = {
    "black": """
import sys
import black

if __name__ == "__main__":
    sys.argv[1:] = ["--workers", "2", "--no-cache", "."]
    black.patched_main()
""",
    "yapf": """
import sys
import yapf

if __name__ == "__main__":
    sys.argv[1:] = ["--parallel", "--recursive", "--in-place", "."]
    yapf.run_main()
""",
}


@pytest.mark.parametrize(
    ("name", "ends_with", "complaints"),
    [
        ("black", 123, ["error: cannot .*broken.py", "1 file failed to reformat.$"]),
        ("yapf", 1, ["broken.py:2:0: EOF in multi-line statement"]),
    ],
)
def test_a_formatter_formats_many_files(run_both, name, ends_with, complaints):
    code, _, said, files, calls = run_both(FORMATTERS[name], SOURCES)
    assert code == ends_with, said
    assert files["module3.py"] == "value = [3, 3]\n"
    assert all(any(re.search(complaint, line) for line in said) for complaint in complaints), said
    assert calls == len(SOURCES) + 1  # the program, too


BAG = """
import math
import dask, dask.bag

if __name__ == "__main__":
    dask.config.set({"multiprocessing.context": "fork"})
    bag = dask.bag.range(100, npartitions=4)
    print(bag.map(math.isqrt).frequencies(sort=True).compute(scheduler="processes", num_workers=2))
    try:
        bag.map(math.log).compute(scheduler="processes", num_workers=2)
    except ValueError as error:
        print(error)
"""


def test_bags_of_dask_on_its_scheduler_of_processes(run_both):
    code, told, said, _, calls = run_both(BAG)
    assert (code, said) == (0, [])
    assert told[0].startswith("[(9, 19), (8, 17)")
    assert "math domain error" in told[1]
    assert calls
