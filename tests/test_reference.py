"""The reference is made from the code: it has every public name with its docstring; what is told twice is equal."""

import dataclasses
import importlib
import inspect
import re
from concurrent.futures import Executor
from pathlib import Path

import pytest

import shmexec
from shmexec.__main__ import _parser

ROOT = Path(__file__).parent.parent
API = (ROOT / "docs/api.md").read_text()
PAGE = (ROOT / "docs/reference.md").read_text()
MADE = dict(re.findall(r"^\.\. auto\w+:: ([\w.]+)(?:\(\))?\n((?:   .*\n)*)", API, re.MULTILINE))

PUBLIC = [f"shmexec.{name}" for name in shmexec.__all__ if name != "SharedExecutor"]
PUBLIC += ["shmexec.options.LimitedExecutor"]
OPTIONAL = [f"shmexec.integrations.joblib.{name}" for name in ("register", "shutdown", "ShmexecBackend")]
OPTIONAL += [
    f"shmexec.integrations.distributed.{name}"
    for name in ("ClusterExecutor", "ClusterFuture", "LimitedClusterExecutor", "SharedExecutorPlugin")
]


def named(path):
    module, _, name = path.rpartition(".")
    if module.startswith("shmexec.integrations."):
        pytest.importorskip(module.rpartition(".")[2])
    return getattr(importlib.import_module(module), name)


def methods(cls):
    return {
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if not name.startswith("_") and inspect.isfunction(value) and base.__module__.startswith("shmexec.")
    }


def test_the_site_has_every_public_name_and_no_other():
    assert sorted(MADE) == sorted(PUBLIC + OPTIONAL)
    assert "data:: shmexec.SharedExecutor" in API


def test_every_public_name_of_the_cluster_is_in_the_site():
    pytest.importorskip("distributed")
    names = importlib.import_module("shmexec.integrations.distributed").__all__
    assert {f"shmexec.integrations.distributed.{name}" for name in names} <= set(OPTIONAL)


@pytest.mark.parametrize("path", PUBLIC + OPTIONAL)
def test_each_has_a_docstring_and_so_have_its_methods(path):
    value = named(path)
    assert inspect.getdoc(value)
    listed = re.search(r":members: (.*)", MADE[path])
    if inspect.isclass(value) and issubclass(value, Executor):
        assert set(listed[1].split(", ")) == methods(value) - {"has_made"}
    for name in listed[1].split(", ") if listed else ():
        assert inspect.getdoc(getattr(value, name))


def test_the_site_has_every_command():
    commands = list(_parser()._subparsers._group_actions[0].choices)
    assert sorted(re.findall(r"^\.\. shmexec-help:: (\w+)", API, re.MULTILINE)) == sorted(commands)
    missing = [name for name in commands if f"shmexec {name}" not in PAGE]
    assert missing == []


# ---- the page that is written by hand ---------------------------------------------------------------


@pytest.mark.parametrize("name", shmexec.__all__)
def test_the_page_has_every_public_name(name):
    assert re.search(rf"`(shmexec\.)?{name}\b|^{name}\(|\s{name}\(", PAGE, re.MULTILINE)


SIGNATURES = {
    "SharedExecutor": "shmexec.SharedExecutor",
    **{name: f"shmexec.SharedExecutor.{name}" for name in methods(shmexec.SharedExecutor)},
    **{name: f"shmexec.{name}" for name in shmexec.__all__ if inspect.isfunction(getattr(shmexec, name))},
    "ClusterExecutor": "shmexec.integrations.distributed.ClusterExecutor",
    "SharedExecutorPlugin": "shmexec.integrations.distributed.SharedExecutorPlugin",
}


def told():
    """(name, parameters) of each signature on the page: in a block of them, or at the beginning of a section."""
    blocks = "\n".join(re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    for name, parameters in re.findall(r"\b(\w+)\(([^()]*(?:\(\)[^()]*)*)\)", blocks):
        if name in SIGNATURES:
            yield name, parameters
    sections = re.findall(r"^#+ [\w, ]+\n\n((?:`.*\n)+|`.*)", PAGE, re.MULTILINE)
    for text in [*sections, *re.findall(r"^`(?:Cluster|SharedExecutorPlugin|shmexec.integ).*", PAGE, re.MULTILINE)]:
        for name, parameters in re.findall(r"`(\w+)\(([^`]*)\)`", text):
            if name in SIGNATURES:
                yield name, parameters


def as_told(path):
    owner, _, name = path.rpartition(".")
    value = getattr(shmexec.SharedExecutor, name) if owner == "shmexec.SharedExecutor" else named(path)
    parameters = list(inspect.signature(value).parameters.values())
    bare = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    return str(inspect.Signature(bare))[1:-1].replace("'", '"')


TOLD = dict(told())


@pytest.mark.parametrize("name", TOLD)
def test_a_signature_on_the_page_is_that_of_the_code(name):
    assert re.sub(r"\s+", " ", TOLD[name]) == as_told(SIGNATURES[name])


def test_the_page_has_the_signatures_of_all_that_take_something():
    have = {name for name in SIGNATURES if as_told(SIGNATURES[name]) not in ("", "/")}
    assert have - set(TOLD) == {"private", "readonly", "report_progress"}  # one argument, in a sentence


@pytest.mark.parametrize("record", [shmexec.PoolStats, shmexec.HeapInfo, shmexec.KernelName, shmexec.Crossing])
def test_the_page_and_the_docstring_have_every_field(record):
    for field in dataclasses.fields(record):
        assert f"`{field.name}`" in PAGE, field.name
        assert re.search(rf"\b{field.name}\b", inspect.getdoc(record)), field.name


# ---- figures that a constant of the code decides ----------------------------------------------------

FIGURES = [  # where it stands, by how much, what a page says with it
    ("shmexec.pool.spans._TARGET", 1000, "docs/reference.md", "spans of about {} milliseconds of work"),
    ("shmexec.pool.spans._TARGET", 1000, "docs/migration.md", "what takes about {} ms"),
    ("shmexec.pool.spans._TARGET", 1000, "docs/internals/scaling.md", "{} ms of work each"),
    ("shmexec.pool.spans._TARGET", 1000, "docs/internals/data-flow.md", "{} ms of work, two for each worker"),
    ("shmexec.pool.spans._LEAST_BUDGET", 1000, "docs/reference.md", "busy with a span for {} milliseconds"),
    ("shmexec.pool.spans._LARGEST", 1, "docs/reference.md", "up to {:,} where they do nothing"),
    ("shmexec.mapping._FEW_SHORT", 1, "docs/reference.md", "({} numbers or short strings"),
    ("shmexec.transport.messages.DEPTH", 1, "docs/internals/data-flow.md", "(`DEPTH`)"),
    ("shmexec.pool.lives._LIMIT_GRACE", 1, "docs/reference.md", "not ended after {} seconds"),
    ("shmexec.pool.lives._LIMIT_GRACE", 1, "docs/internals/data-flow.md", "for {} seconds, then SIGKILL"),
    ("shmexec.pool.lives._GRACE", 1, "docs/reference.md", "has not ended {} seconds after"),
    ("shmexec.pool.last_words._KEPT", 1, "docs/reference.md", "at most {} characters"),
    ("shmexec.worker.loop._PATIENCE", 1, "docs/reference.md", "waits up to {} seconds for memory"),
    (
        "shmexec.pickling.functions._TABLE_SIZE",
        1,
        "docs/internals/data-flow.md",
        "least-recently-used table of {} numbers",
    ),
    ("shmexec.pickling.functions._LONGEST_KEPT", 1 / 1024, "docs/reference.md", "no more than {} KiB"),
]


@pytest.mark.parametrize(("path", "times", "page", "says"), FIGURES)
def test_a_page_says_what_the_constant_is(path, times, page, says):
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name) * times
    assert says.format(round(value)) in (ROOT / page).read_text().replace("\n", " ")
