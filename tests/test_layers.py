"""The layers of the source: each imports only those below it, and the package loads only what is asked for."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(find_spec("shmexec").origin).parent

# what stands further right may import what stands further left; those in one place never import each other
LAYERS = [
    {"deaths", "image_files", "quantities"},
    {"errors", "checks", "standard"},
    {"_core"},
    {"arrays", "pickling", "reports", "progress"},
    {"transport", "chunks"},
    {"worker", "pool"},
    {"mapping"},
    {"options"},
    {"executor", "measure", "heaps"},
    {"integrations", "batch", "demo", "bench", "top"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported_parts(path):
    """The parts of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "shmexec" and rest:
                yield rest.partition(".")[0]


def files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_drawing_in_contributing_has_these_layers():
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    drawing = next(block for block in text.split("```") if "< _core <" in block).removeprefix("text")
    assert [set(layer.strip(" {}").split(" | ")) for layer in drawing.replace("\n", "").split("<")] == LAYERS


def test_every_part_of_the_package_has_its_layer():
    assert {part_of(path) for path in files()} <= LEVEL.keys()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_layers_below_its_own(path):
    own = part_of(path)
    for part in imported_parts(path):
        if part in LEVEL:  # else a public name of the package, which is loaded lazily
            assert part == own or LEVEL[part] < LEVEL[own], f"{own} must not import {part}"


def modules_after(statement):
    code = f"import sys; {statement}; print(*(m for m in sys.modules if m.startswith('shmexec')))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_of_it():
    assert modules_after("import shmexec") == {"shmexec"}


def test_a_worker_does_not_load_the_parents_half():
    loaded = modules_after("import shmexec.worker.loop")
    assert not any(name.startswith(("shmexec.pool", "shmexec.executor", "shmexec.demo")) for name in loaded)


def test_every_public_name_can_be_had_and_is_documented():
    import shmexec

    for name in shmexec.__all__:
        assert getattr(shmexec, name).__doc__, name
    assert set(dir(shmexec)) == set(shmexec.__all__)


def test_an_unbuilt_checkout_names_the_command_to_type(tmp_path):
    bare = tmp_path / "shmexec"
    bare.mkdir()
    (bare / "__init__.py").write_text((PACKAGE / "__init__.py").read_text())
    done = subprocess.run([sys.executable, "-c", "import shmexec"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "pip install -e ." in done.stderr


def test_the_installed_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()
