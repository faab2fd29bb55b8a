"""Globals of a script's `__main__` in the workers: as with the standard library's pool."""

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, sys
from shmexec import SharedExecutor

level, cache, count, factor = None, {}, 0, 2

def initialize(n):
    global level, made
    level = n
    cache["n"] = n
    made = n * 2

def look(): return level, cache, made
def step():
    global count
    count += 1
    return count
def scaled(x): return x * factor
def factorial(n): return 1 if n < 2 else n * factorial(n - 1)
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
def returned(): return step

class Point:
    def __init__(self): self.registry = registry
    def where(self): return level
def make(): return Point()

registry = [1, Point]

if True:  # no guard
    method = sys.argv[1]
    context = None if method == "default" else multiprocessing.get_context(method)
    with SharedExecutor(1, context, initialize, (5,)) as ex:
        assert ex.submit(look).result() == (5, {"n": 5}, 10), "what the initializer set"
        assert [ex.submit(step).result() for _ in range(3)] == [1, 2, 3], "a counter"
        assert ex.submit(scaled, 3).result() == 6
        factor = 10
        assert ex.submit(scaled, 3).result() == 30, "a value that the parent changed"
        assert ex.submit(factorial, 5).result() == 120 and ex.submit(even, 4).result(), "recursion"
        point = ex.submit(make).result()
        assert type(point) is Point and point.registry == [1, Point], "instances; a global that names itself"
        assert ex.submit(Point.where, point).result() == 5
        assert ex.submit(returned).result()() == 4 and count == 0 and level is None, "the parent keeps its own"
print("fine")
"""


BY_PICKLE = """
import multiprocessing, pickle, sys
from shmexec import SharedExecutor

class Point:
    def __init__(self, x): self.x = x

method = sys.argv[1]
with SharedExecutor(1, None if method == "default" else multiprocessing.get_context(method)) as ex:
    point = Point(3)
    assert pickle.loads(ex.submit(pickle.dumps, point).result()).x == 3, "plain pickle, of an instance that came"
    assert type(ex.submit(pickle.loads, pickle.dumps(point)).result()) is Point
    class Point:
        pass
    assert type(pickle.loads(ex.submit(pickle.dumps, Point()).result())) is Point, "the new class"
    assert type(ex.submit(pickle.loads, pickle.dumps(Point())).result()) is Point
    Point.late = 5
    assert ex.submit(getattr, Point(), "late").result() == 5, "a class that was changed"
print("fine")
"""


@pytest.mark.parametrize("method", ["default", "fork", "forkserver", "spawn"])
def test_plain_pickle_in_a_worker_knows_the_classes_that_have_come(method, script):
    assert script(BY_PICKLE, method).stdout == "fine\n"


@pytest.mark.parametrize("method", ["default", "fork", "forkserver", "spawn"])
def test_globals_of_a_script_keep_what_the_initializer_and_the_calls_set(method, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, path, method], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


IN_A_CHILD = """
import multiprocessing, sys
from shmexec import SharedExecutor

class Thing:
    pass

scale = 5

def work(thing, number):
    return Thing(), number * scale

def child(answers):
    with SharedExecutor(1) as ex:
        thing, number = ex.submit(work, Thing(), 4).result()
        answers.put((type(thing) is Thing, number, ex.submit(callable, work).result()))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=child, args=(answers,), daemon=True)
    process.start()
    print(*answers.get())
    process.join()
    print(process.exitcode)
"""


def test_in_a_spawned_child_functions_of_the_script_go_by_value(script):
    assert script(IN_A_CHILD).stdout.split() == ["True", "20", "True", "0"]
