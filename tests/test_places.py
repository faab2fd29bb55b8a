"""The places where people work: prompts, notebooks, archives, pytest.

Scripts, standard input and -c: test_functions.py; daemonic processes and workers: test_shutdown.py; many threads:
test_calls.py.
"""

import os
import subprocess
import sys
import zipapp

import numpy as np
import pytest
import sequencer
import tasks

import shmexec

# What somebody types one after the other. Each step is a cell, or a block at a prompt.
STEPS = [
    "import dataclasses, multiprocessing, os, pickle",
    "import numpy as np, shmexec",
    "method = os.environ.get('METHOD') or None",
    "ex = shmexec.SharedExecutor(2, method and multiprocessing.get_context(method))",
    "@dataclasses.dataclass\nclass Point:\n    x: object\n    def norm(self): return float(abs(self.x).sum())",
    "def is_point(p): return isinstance(p, Point), p.norm()",
    "def make(n): return Point(np.full(n, scale))",
    "scale = 2.0",
    "assert ex.submit(is_point, Point(np.ones(4))).result() == (True, 4.0)",
    "made = ex.submit(make, 50_000).result()",
    "assert type(made) is Point and made.norm() == 100_000 and shmexec.is_shared(made.x)",
    "assert pickle.loads(ex.submit(pickle.dumps, made).result()).norm() == 100_000",
    "def make(n): return [Point(np.full(n, scale))]",
    "assert list(ex.map(make, [3, 4]))[1][0].norm() == 8.0",
    "scale = 3",
    "assert ex.submit(make, 5).result()[0].norm() == 15.0",
    "class Point:\n    def __init__(self, x): self.x = x\n    def norm(self): return 'new'",
    "assert ex.submit(is_point, Point(1)).result() == (True, 'new')",
    "assert type(ex.submit(make, 5).result()[0]) is Point",
    "Point.norm = lambda self: 'changed'",
    "assert ex.submit(is_point, Point(1)).result() == (True, 'changed')",
]
LAST = ["ex.shutdown()", "print('fi' + 'ne', __name__)"]


def typed(command, steps, folder, **variables):
    """What a prompt prints when this is typed."""
    ran = subprocess.run(
        [sys.executable, *command],
        input="\n\n".join(steps) + "\n\n",
        cwd=folder,
        env={**sequencer.environment(), **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_at_the_prompt_what_was_defined_last_counts(method, tmp_path):
    said = typed(["-i", "-q"], [*STEPS, *LAST], tmp_path, **({"METHOD": method} if method else {}))
    assert "fine __main__" in said
    assert "Error" not in said


def test_in_ipython_what_was_defined_last_counts(tmp_path):
    pytest.importorskip("IPython")
    command = ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor", "--no-confirm-exit"]
    said = typed(command, [*STEPS, *LAST], tmp_path, IPYTHONDIR=str(tmp_path), HOME=str(tmp_path))
    assert "fine __main__" in said
    assert "Error" not in said


NOTEBOOK = [
    "assert len(list(ex.map(make, range(300), progress=True))) == 300",
    "import asyncio\nassert (await asyncio.wrap_future(ex.submit(is_point, Point(1))))[0]",
    "def crash():\n    import ctypes\n    ctypes.memset(8, 1, 1)",
    "try:\n    ex.submit(crash).result()\nexcept shmexec.WorkerDied as error:\n    print(error)",
]

RUN_NOTEBOOK = """
import json, sys, warnings
warnings.simplefilter("ignore")  # theirs
import nbclient, nbformat
notebook = nbformat.v4.new_notebook()
notebook.cells = [nbformat.v4.new_code_cell(source) for source in json.load(open("cells"))]
nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": "."}}).execute()
for cell in notebook.cells:
    print(*(output.get("text", output.output_type) for output in cell.outputs))
"""


def test_in_a_notebook_what_was_defined_last_counts(tmp_path):
    for name in "nbclient", "ipykernel":
        pytest.importorskip(name)
    import json

    (tmp_path / "cells").write_text(json.dumps([*STEPS, *NOTEBOOK, *LAST]))
    kernel = tmp_path / "kernels" / "python3"  # this interpreter's, whatever else is installed
    kernel.mkdir(parents=True)
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": arguments, "display_name": "x", "language": "python"}))
    ran = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK],
        cwd=tmp_path,
        env={
            **sequencer.environment(),
            "HOME": str(tmp_path),
            "JUPYTER_PATH": str(tmp_path),
            "JUPYTER_PLATFORM_DIRS": "1",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert "fine __main__" in ran.stdout
    assert "Segmentation fault" in ran.stdout
    assert "line 3 in crash" in ran.stdout
    assert "300/300" in ran.stdout


@pytest.mark.parametrize("method", ["", "spawn"])
def test_a_module_run_by_name_and_an_archive(method, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "beside.py").write_text("def double(x): return 2 * x")
    program = "\n".join(["import beside", *STEPS, "assert ex.submit(beside.double, 4).result() == 8", *LAST])
    (package / "__main__.py").write_text(program)
    (package / "program.py").write_text(program)
    zipapp.create_archive(package, tmp_path / "archive.pyz")
    environment = {**sequencer.environment(), "METHOD": method}
    for command, folder in (["-m", "program"], package), (["archive.pyz"], tmp_path):
        done = subprocess.run(
            [sys.executable, "-W", "error", *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("fine __main__\n", "")


def test_pools_pass_each_others_arrays(make_executor):
    one, two, three = make_executor(1), make_executor(1, "spawn"), make_executor(1, "fork")
    array = one.submit(tasks.make_shared, 100_000, 1).result()
    for pool in two, three, one:
        pool.submit(tasks.fill, array, 1 + array[0]).result()
    made = two.submit(tasks.give, {"a": one.submit(np.multiply, array, 2).result()[::2]}).result()["a"]
    assert (made == 8).all()
    assert shmexec.is_shared(made)
    for pool in one, two, three:
        stats = pool.stats()
        assert stats.bytes_copied_in < 1000
        assert stats.bytes_copied_out < 1000
    late = three.submit(tasks.double, two.submit(tasks.give, array))  # a future of another pool is waited for by nobody
    assert isinstance(late.exception(), Exception)


TESTS = """
import multiprocessing, os
import numpy as np, pytest
from shmexec import SharedExecutor

class Point:
    def __init__(self, x): self.x = x

def double(p): return Point(p.x * 2)
def is_point(p): return isinstance(p, Point)
def initialize(p):
    global count
    count = p.x
count = 0
def step():
    global count
    count += 1
    return count

@pytest.fixture(scope="session")
def pool():
    with SharedExecutor(1) as pool:
        yield pool

def test_classes(pool):
    made = pool.submit(double, Point(np.ones(50_000))).result()
    assert type(made) is Point and made.x.sum() == 100_000
    assert pool.submit(is_point, made).result()
    assert [pool.submit(step).result() for _ in range(3)] == [1, 2, 3] and count == 0

@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_methods(method):
    with SharedExecutor(1, multiprocessing.get_context(method), initialize, (Point(5),)) as pool:
        assert pool.submit(is_point, Point(2)).result()
        assert pool.submit(step).result() == 6
"""


@pytest.mark.parametrize(
    "options", [["-p", "no:xdist", "--import-mode=importlib"], ["-n", "1"]], ids=["alone", "xdist"]
)
def test_under_pytest(options, tmp_path):
    pytest.importorskip("xdist")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    folder = tmp_path / "tests" / "deeper"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


PLUGINS = {
    "__init__.py": "base = 5",
    "beside.py": "value = 1",
    "plugin.py": """
from . import base
def total():
    from .beside import value
    return base + value
class Thing:
    pass
""",
    "bad.py": """
import sys
if "parent" not in sys.modules:
    raise KeyError("here")
def f():
    pass
""",
}

LOADING = """
import importlib.util, sys, types
from shmexec import SharedExecutor

def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

sys.modules["parent"] = sys
sys.modules["plugins"] = types.ModuleType("plugins")
load("plugins.deep", "plugins/deep/__init__.py")
plugin, bad = load("plugins.deep.plugin", "plugins/deep/plugin.py"), load("bad", "plugins/deep/bad.py")
with SharedExecutor(1) as ex:
    assert ex.submit(plugin.total).result() == 6
    name, thing = ex.submit(lambda thing: (type(thing).__module__, thing), plugin.Thing()).result()
    assert name == "plugins.deep.plugin" and type(thing) is plugin.Thing
    for _ in range(2):
        assert isinstance(ex.submit(bad.f).exception(), KeyError), "what the loading raises"
    assert ex.submit(plugin.total).result() == 6
print("fine")
"""


def test_a_module_that_was_loaded_from_a_file_is_loaded_from_it_by_workers(script, tmp_path):
    folder = tmp_path / "plugins" / "deep"
    folder.mkdir(parents=True)
    for name, source in PLUGINS.items():
        (folder / name).write_text(source)
    assert script(LOADING).stdout == "fine\n"
