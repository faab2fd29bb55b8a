"""CPython's own tests of the process pool pass on our class, each with one start method; where there are such tests."""

from importlib.util import find_spec


def _are_there():
    try:
        return find_spec("test.test_concurrent_futures.test_process_pool") is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


if _are_there():

    def test_cpythons_tests_of_the_process_pool_pass(run_tests_of_others):
        run_tests_of_others("cpython")
