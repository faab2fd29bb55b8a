"""Builds the one extension, shmexec._core, from native/. Everything else is in pyproject.toml."""

import os
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.sdist import sdist

FOLDERS = (".ci", "benchmarks", "docs", "native", "shmexec", "tests")
MADE = {".pyc", ".so", ".o"}


class SourceDistribution(sdist):
    """All that a checkout has, so that the suites, the documentation and `.ci/run` can be run from it, too.

    Here and not in MANIFEST.in: it is one rule, what is in these folders and was not made by a build.
    """

    def make_distribution(self) -> None:
        made = {"native/_core.c"}
        files = [str(path) for folder in FOLDERS for path in Path(folder).rglob("*") if path.is_file()]
        wanted = [name for name in files if Path(name).suffix not in MADE and name not in made]
        self.filelist.extend([*wanted, "CHANGELOG.md", "CONTRIBUTING.md", ".gitignore"])
        self.filelist.files = sorted(set(self.filelist.files) - made)
        super().make_distribution()


flags = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-fno-strict-aliasing"]
if os.environ.get("SHMEXEC_WERROR"):  # CI. NumPy's headers and what Cython makes are not ours: the rest is off
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-function"]

sources = ["native/_core.pyx", *sorted(str(p) for p in Path("native").glob("*.c") if p.name != "_core.c")]
macros = [("NPY_NO_DEPRECATED_API", "NPY_1_22_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION")]
if os.environ.get("SHMEXEC_TEST_STEPS"):  # for tests: a process can be killed before any store to shared memory
    sources.append("tests/native/steps.c")
    macros.append(("SX_TEST_STEPS", None))

core = Extension(
    "shmexec._core",
    sources,
    include_dirs=["native", numpy.get_include()],
    depends=sorted(str(p) for p in Path("native").glob("*.[hp][xy]*")) + sorted(map(str, Path("native").glob("*.h"))),
    define_macros=macros,
    extra_compile_args=flags,
    extra_link_args=["-pthread", "-ldl"],
)

# always made anew: what one NumPy's declarations gave does not compile against an older one's headers
setup(
    cmdclass={"sdist": SourceDistribution},
    ext_modules=cythonize([core], language_level=3, include_path=["native"], force=True),
)
