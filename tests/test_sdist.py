"""What a source distribution holds."""

import runpy
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.command.egg_info import FileList

ROOT = Path(__file__).parents[1]


def test_the_source_distribution_has_what_the_suites_and_the_documentation_need(monkeypatch):
    cython = pytest.importorskip("Cython.Build")
    said = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", lambda **given: said.update(given))
    monkeypatch.setattr(cython, "cythonize", lambda *_, **__: [])
    monkeypatch.setattr("setuptools.command.sdist.sdist.make_distribution", lambda _: None)
    runpy.run_path(str(ROOT / "setup.py"))
    command = said["cmdclass"]["sdist"](Distribution())
    command.filelist = FileList()
    command.filelist.append("setup.py")
    command.make_distribution()
    held = set(command.filelist.files)
    kinds = {"py", "md", "pyx", "pxi", "pxd", "pyi", "h", "hex", "pml", "sh", "svg", "png"}
    wanted = {
        str(path.relative_to(ROOT))
        for folder in ("benchmarks", "docs", "native", "shmexec", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix[1:] in kinds
    }
    assert wanted <= held
    assert {".ci/run", "CHANGELOG.md", "CONTRIBUTING.md", "setup.py", "tests/cpython/exclusions"} <= held
    assert not [name for name in held if name.endswith((".so", ".pyc", "_core.c"))]
