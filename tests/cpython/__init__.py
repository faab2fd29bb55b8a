"""CPython's own tests of the process pool, with ours in its place: ``python -m tests.cpython``."""
