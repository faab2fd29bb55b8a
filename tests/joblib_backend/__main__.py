"""Run joblib's tests of parallel computing with our backend in the place of loky, which is its default.

``python -m tests.joblib_backend`` runs all, ``--short`` some of each kind, ``-k WORDS`` those that pytest would choose.
What is left out stands in `exclusions`, with the reason.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from tests import exclusions

HERE = Path(__file__).parent
MODULES = ("joblib.test.test_parallel", "joblib.test.test_config")
SHORT = (
    "test_error_in_task_iterator or test_dispatch_multiprocessing or test_nested_exception_dispatch"
    " or test_nested_parallelism_limit or test_deadlock_with_generator or test_abort_backend"
    " or test_parallel_timeout_fail or test_backend_nesting_level or test_initializer_context"
)


class Chosen:
    """What pytest asks about the tests that it has found."""

    def pytest_configure(self, config):
        for marker in ("thread_unsafe", "no_cover"):  # joblib's
            config.addinivalue_line("markers", marker)

    def pytest_collection_modifyitems(self, config, items):
        table = excluded()
        items[:] = [item for item in items if _is_ours(item)]
        out = [item for item in items if _key(item, table) is not None]
        unseen = table.keys() - {_key(item, table) for item in out}
        if unseen and not config.option.keyword:
            raise SystemExit(f"exclusions names tests that do not exist: {', '.join(sorted(unseen))}")
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def excluded():
    """Names of tests that make no sense here, and why."""
    return exclusions.read(HERE / "exclusions")


def _key(item, table):
    """What the table calls a test: its function, or its function with its parameters."""
    return next((name for name in (item.name, item.name.partition("[")[0]) if name in table), None)


def _is_ours(item):
    """Whether a test is not about other backends alone."""
    if "callspec" not in item.__dict__:
        return True
    named = [value for name, value in item.callspec.params.items() if name.endswith("backend")]
    return not named or any(_names_us(value) for value in named)


def _names_us(backend):
    return backend in (None, "loky", "back_compat_backend") or type(backend).__name__ == "LokyBackend"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.joblib_backend", description=__doc__)
    parser.add_argument("-k", dest="words", default="")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if find_spec("joblib") is None:
        print("joblib is not installed: pip install 'shmexec[joblib]'", file=sys.stderr)
        return 2
    paths = [str(HERE / "site"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    sys.path.insert(0, paths[0])
    import loky_stand_in
    import pytest

    loky_stand_in.stand_in()
    words = options.words or (SHORT if options.short else "")
    arguments = ["--pyargs", *MODULES, "-c", os.devnull, "-p", "no:cacheprovider", "-q", "--timeout=120", "-k", words]
    status = pytest.main([*arguments, *(["-v"] if options.verbose else [])], plugins=[Chosen()])
    for name, reason in excluded().items():
        print(f"not run: {name}: {reason}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
