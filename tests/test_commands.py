"""Each command in the documentation is run, or stands in NOT_RUN with the reason; then its words are checked."""

import ast
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shmexec.__main__ import _parser

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").rglob("*.md"))]
}
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^\n((?:^    .*\n)+)", re.MULTILINE)  # after a line that is empty

SHELL = ("sh", "console")
OTHER = ("python", "py", "text", "{eval-rst}", "{toctree}")  # test_docs.py runs the first two
RUN = ("shmexec ls", "shmexec gc", "shmexec top")  # as they stand
RUN_ELSEWHERE = {"docs/batch.md": "tests/batch/test_page.py"}  # the blocks of a page, in order, with what they print

NOT_RUN = {  # by the program that is called
    "pip": "installs; .ci/run installs from a copy of the checkout",
    "shmexec": "takes long, or files of the reader's; parsed as the command does",
    "python": "a script of the checkout that takes minutes, or root; its options are looked up in its parser",
    "pytest": "is what runs this",
    ".": "switches to an environment",
    "export": "is for three machines",
    "dask": "is for three machines; its options are looked up in its parser",
    "ruff": "by .ci/run, as it stands here",
    "mypy": "by .ci/run, as it stands here",
    "cython-lint": "by .ci/run, as it stands here",
    "sphinx-build": "by .ci/run, as it stands here, but for the folders",
    "cc": "takes an hour; tests/native compiles the same and runs it for a second",
    "clang": "has libFuzzer, which is not everywhere; tests/native runs the same with cc",
    "aarch64-linux-gnu-gcc": "a compiler that is not everywhere",
    "qemu-aarch64-static": "an emulator that is not everywhere",
    "./stress": "was compiled above it",
    "/tmp/fuzz_ring": "was compiled above it",
    "twine": "of a release",
    "cibuildwheel": "of a release",
    "auditwheel": "of a release",
    ".ci/run": "is what runs this",
    "docs/internals/model/check.sh": "takes minutes, and spin",
    "docs/internals/model/protocol/suite.sh": "takes minutes, and spin",
}


def fenced(text):
    """(language, contents) of each block."""
    found = [(language, block) for _, language, block in FENCE.findall(text)]
    return found + [("sh", block) for block in INDENTED.findall(FENCE.sub("", text))]


def commands(language, block):
    lines = block.replace("\\\n", " ").splitlines()
    if language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        for command in line.split("&&"):
            if words := shlex.split(command, comments=True):
                yield " ".join(shlex.quote(word) if " " in word else word for word in words)


def inline(text):
    """Commands in the sentences: what begins with a program that is known, and is no path or name of ours."""
    for words in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        program = re.sub(r"^(\w+=\S+ |sudo )+", "", words).partition(" ")[0]
        if program in NOT_RUN and words not in ("shmexec", "python", "python -m", "pip", "dask", "."):
            yield words


def commands_of(page):
    blocks = [] if page in RUN_ELSEWHERE else [pair for pair in fenced(PAGES[page]) if pair[0] in SHELL]
    return [command for block in blocks for command in commands(*block)], list(inline(PAGES[page]))


# ---- what can be said of a command without running it -----------------------------------------------


def check(command, page="README.md"):
    """AssertionError says what is wrong with it."""
    words = shlex.split(command)
    while words and (re.match(r"\w+=", words[0]) or words[0] == "sudo"):
        setting = words.pop(0).partition("=")[0]
        assert setting in ("sudo", "ASAN_OPTIONS") or is_read(setting), f"{setting}: nobody reads it"
    assert words[0] in NOT_RUN, f"{command}: neither run nor in NOT_RUN"
    program, arguments = words[0], words[1:]
    if program in CHECKS:
        CHECKS[program](arguments, page)
    elif "/" in program and not program.startswith(("/tmp/", "./")):
        assert os.access(ROOT / program, os.X_OK), f"{program} cannot be called"


def is_read(variable):
    sources = [*ROOT.glob("tests/**/*.py"), ROOT / ".ci/run"]
    return any(variable in path.read_text() for path in sources if path != Path(__file__))


def check_ours(arguments, _page):
    parser = _parser()
    names = parser._subparsers._group_actions[0].choices
    assert arguments[0] in names, f"shmexec {arguments[0]}: there is no such command"
    if arguments[0] == "map" and len(arguments) == 1:
        return  # the name of the command, in a sentence
    try:
        options = parser.parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"shmexec {' '.join(arguments)}: is refused") from None
    if arguments[0] == "bench":
        from shmexec.bench.peers import PEERS

        assert set(options.peers or ()) <= set(PEERS)


def check_pip(arguments, _page):
    known = set(importlib.metadata.metadata("shmexec").get_all("Provides-Extra"))
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= known, f"{extras}: there is no such extra"


def check_python(arguments, page):
    if arguments[:2] in (["-m", "venv"], ["-m", "build"]):
        return
    if arguments[0] == "-m":
        path = ROOT / arguments[1].replace(".", "/")
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        arguments = arguments[1:]
    else:
        source = ROOT / arguments[0]
        if f"# {arguments[0]}" in PAGES[page]:  # a program that the page shows
            return
    assert source.exists(), f"{source.relative_to(ROOT)}: there is no such program"
    calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)]
    known = {
        value.value
        for call in calls
        if getattr(call.func, "attr", None) == "add_argument"
        for value in call.args
        if isinstance(value, ast.Constant)
    }
    for option in arguments[1:]:
        assert not option.startswith("-") or option in known, f"{source.name} knows no {option}"


def check_pytest(arguments, _page):
    if "-k" in arguments:
        word = arguments[arguments.index("-k") + 1]
        assert any(word in path.read_text() for path in ROOT.glob("tests/**/test_*.py")), f"no test has {word}"
        arguments = arguments[: arguments.index("-k")]
    for path in arguments:
        assert (ROOT / path).exists(), f"{path}: there is no such test"


def check_as_in_ci(program):
    def check_line(arguments, _page):
        lines = [shlex.split(line) for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith(program)]
        wanted = [word for word in arguments if not word.startswith("build/")]
        assert any(set(wanted) <= set(line) for line in lines), f".ci/run has no {program} {' '.join(arguments)}"

    return check_line


def check_compiler(arguments, _page):
    sources = "\n".join(
        path.read_text() for folder in ("native", "tests/native") for path in (ROOT / folder).glob("*.[ch]")
    )
    for word in arguments:
        if word.startswith("-D"):
            assert word[2:] in sources, f"{word}: no source asks for it"
        elif word.startswith("-I") or word.endswith(".c"):
            path = word.removeprefix("-I").removesuffix(")")
            assert path == "_core.c" or list(ROOT.glob(path)), f"{path}: there is no such file"


def check_dask(arguments, _page):
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_worker

    known = {"worker": dask_worker, "scheduler": dask_scheduler}[arguments[0]].main.params
    options = {option for parameter in known for option in parameter.opts}
    for word in arguments[1:]:
        assert not word.startswith("-") or word in options, f"dask {arguments[0]} knows no {word}"


def check_dask_setting(arguments, _page):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    name = arguments[0].partition("=")[0].removeprefix("DASK_")
    assert dask.config.get(name.lower().replace("__", "."), None) is not None, f"{name}: Dask has no such setting"


CHECKS = {
    "shmexec": check_ours,
    "pip": check_pip,
    "python": check_python,
    "pytest": check_pytest,
    "dask": check_dask,
    "export": check_dask_setting,
    **dict.fromkeys(("cc", "clang", "aarch64-linux-gnu-gcc"), check_compiler),
    **{program: check_as_in_ci(program) for program in ("ruff", "mypy", "cython-lint", "sphinx-build")},
}


# ---- the tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_it_is(page):
    """So that no command passes for a drawing. (The one table of docs/benchmarks.md is pasted as it is printed.)"""
    strange = [(language, block[:60]) for language, block in fenced(PAGES[page]) if language not in SHELL + OTHER]
    assert len(strange) == (1 if page == "docs/benchmarks.md" else 0), strange


@pytest.mark.parametrize("page", PAGES)
def test_each_command_is_run_or_its_words_are_known(page):
    in_blocks, in_sentences = commands_of(page)
    for command in in_blocks + in_sentences:
        if command not in RUN:
            check(command, page)


def test_the_commands_of_the_installed_package_run(tmp_path):
    stand = {command for page in PAGES for command in commands_of(page)[0]}
    assert set(RUN) <= stand, "on no page any more"
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    for command in RUN:
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), command


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_what_another_test_runs_is_run_there(page):
    assert f'"{Path(page).name}"' in (ROOT / RUN_ELSEWHERE[page]).read_text()


@pytest.mark.parametrize(("page", "command"), [("docs/batch.md", "map"), ("docs/top.md", "top")])
def test_a_page_has_the_options_of_its_command(page, command):
    actions = _parser()._subparsers._group_actions[0].choices[command]._actions
    known = {option for action in actions for option in action.option_strings} - {"-h", "--help"}
    rows = set(re.findall(r"^\| `(--[\w-]+)", PAGES[page], re.MULTILINE))
    named = set(re.findall(r"`(--[\w-]+)[^`]*`", FENCE.sub("", PAGES[page])))
    described_above = {"--out", "--format"} & known
    assert rows == known - described_above
    assert named <= known | {"--once"}


@pytest.mark.parametrize(
    "command",
    [
        "frobnicate --all",
        "shmexec lss",
        "shmexec ls --jsn",
        "shmexec bench --peers nobody",
        'pip install ".[demos]"',
        "python nothing.py",
        "python -m tests.chaos --second 3",
        "pytest nothing",
        "SHMEXEC_NOTHING=1 pytest",
        "ruff format --check shmexec setup.py",
        "cc -DSX_NOTHING -Inative tests/native/stress.c",
    ],
)
def test_a_command_that_would_not_work_is_found(command):
    with pytest.raises(AssertionError):
        check(command)
