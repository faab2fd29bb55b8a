"""Programs that were written for `ProcessPoolExecutor`, with one import changed."""

import compileall
import concurrent.futures

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
