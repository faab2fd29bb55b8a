"""Modules that the workers have from their beginning, imported once for all."""

import pytest

MODULE = """
import os
print("imported by", os.getpid(), flush=True)
"""

PROGRAM = """
import multiprocessing, os, sys
import shmexec

def told(name):
    return name in sys.modules, os.getppid()

if __name__ == "__main__":
    method, by = sys.argv[1:]
    context = None if method == "none" else multiprocessing.get_context(method)
    if by == "multiprocessing":
        multiprocessing.set_forkserver_preload(["for_all", "__main__"])
    preload = ["for_all"] if by == "argument" else []
    with shmexec.SharedExecutor(2, context, preload=preload) as ex:
        found = [ex.submit(told, "for_all").result() for _ in range(4)]
    print("workers", *sorted({f"{has} {server}" for has, server in found}))
"""


@pytest.mark.parametrize("by", ["argument", "multiprocessing"])
@pytest.mark.parametrize("method", ["none", "forkserver"])
def test_modules_are_imported_once_by_the_process_that_all_workers_are_forked_from(script, tmp_path, method, by):
    (tmp_path / "for_all.py").write_text(MODULE)
    said = script(PROGRAM, method, by).stdout.splitlines()
    imported, workers = (line.split() for line in said)
    assert imported[:2] == ["imported", "by"]
    assert workers == ["workers", "True", imported[2]]


def test_nothing_is_imported_that_nobody_asked_for(script, tmp_path):
    (tmp_path / "for_all.py").write_text(MODULE)
    (workers,) = script(PROGRAM, "none", "nobody").stdout.splitlines()
    assert workers.split()[:2] == ["workers", "False"]


def test_a_module_whose_import_fails_is_left_to_the_calls(script, tmp_path):
    (tmp_path / "for_all.py").write_text("raise RuntimeError('at import')")
    program = PROGRAM.replace(
        "    print", "        print(repr(ex.submit(__import__, 'for_all').exception()))\n    print"
    )
    error, workers = script(program, "none", "argument").stdout.splitlines()
    assert error == "RuntimeError('at import')"
    assert workers.split()[:2] == ["workers", "False"]
