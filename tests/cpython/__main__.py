"""Run CPython's tests of the process pool on our class.

``python -m tests.cpython`` runs all, ``--short`` one start method for each test, ``NAME ...`` those whose id has one
of these words in it, ``-v`` names each as it goes. The interpreter must have CPython's `test.test_concurrent_futures`.
"""

import argparse
import os
import re
import sys
import unittest
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests import exclusions

HERE = Path(__file__).parent
PACKAGE = "test.test_concurrent_futures"
MODULES = ("test_process_pool", "test_shutdown", "test_init", "test_deadlock", "test_as_completed", "test_wait")
METHODS = ("Forkserver", "Spawn", "Fork")  # as the names of the test classes have them


def excluded() -> dict[str, str]:
    """Names of tests of this interpreter that make no sense here, and why."""
    table = {}
    for name, reason in exclusions.read(HERE / "exclusions").items():
        since = re.match(r"since 3\.(\d+): ", reason)
        if since is None or sys.version_info >= (3, int(since[1])):
            table[name] = reason
    return table


def tests_in(suite: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        yield suite
    else:
        for part in suite:
            yield from tests_in(part)


def method_of(test: unittest.TestCase) -> str | None:
    """The start method that a test is about; None: it is one of the thread pool."""
    name = type(test).__name__
    if name == "FailingInitializerResourcesTest":  # of two, by its methods
        return test._testMethodName.removeprefix("test_").capitalize()
    return next((method for method in METHODS if f"ProcessPool{method}" in name), None)


def collect(words: list[str], *, short: bool) -> unittest.TestSuite:
    """The tests to be run, class by class, so that each module's set-up runs once."""
    table, unseen = excluded(), set(excluded())
    chosen: dict[str, list[unittest.TestCase]] = {}
    for name in MODULES:
        module = import_module(f"{PACKAGE}.{name}")
        for test in tests_in(unittest.defaultTestLoader.loadTestsFromModule(module)):
            method, title = method_of(test), test._testMethodName
            unseen.discard(title)
            if method is None or title in table or not (not words or any(word in test.id() for word in words)):
                continue
            chosen.setdefault(f"{name}.{title}", []).append(test)
    if unseen:
        raise SystemExit(f"exclusions names tests that do not exist: {', '.join(sorted(unseen))}")
    suite = unittest.TestSuite()
    for number, tests in enumerate(chosen.values()):
        tests.sort(key=lambda test: METHODS.index(method_of(test) or ""))
        suite.addTests([tests[number % len(tests)]] if short else tests)
    return suite


def stand_in_everywhere() -> None:
    """Here, and in every interpreter that is started from here."""
    paths = [str(HERE / "site"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    sys.path.insert(0, paths[0])
    import_module("stand_in").stand_in()
    # else the tests start interpreters in isolated mode, which would use the standard library's class
    import_module("test.support.script_helper").__dict__["__cached_interp_requires_environment"] = True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="NAME")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if find_spec("test") is None or find_spec(PACKAGE) is None:
        print(f"this interpreter ({sys.version.split()[0]}) has no {PACKAGE}", file=sys.stderr)
        return 2
    stand_in_everywhere()
    suite = collect(options.words, short=options.short)
    result = unittest.TextTestRunner(verbosity=2 if options.verbose else 1).run(suite)
    for name, reason in excluded().items():
        print(f"not run: {name}: {reason}")
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
