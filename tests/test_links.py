"""Links between the pages, pictures, and files that the code speaks of, are there; looked up without a network."""

import re
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")

SOURCES = [path for name in ("shmexec", "native", "tests", "benchmarks") for path in sorted((ROOT / name).rglob("*"))]
SOURCES = [path for path in SOURCES if path.suffix in (".py", ".pyi", ".pyx", ".pxi", ".pxd", ".c", ".h")]
SOURCES = [path for path in SOURCES if path.name != "_core.c" and path != Path(__file__)]  # which is made
# What looks like a file of the checkout: a path with a folder, as written in docstrings, comments and sentences.
FILE = re.compile(r"(?<![\w/.*{<])(?:docs|native|shmexec|tests|benchmarks|\.ci)/[\w./-]*\w")
NO_FILES = {"native/_core.c"}  # made by Cython


def prose(path):
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE))


def anchors(path):
    """Of the headings, as they are made on the web, each so often as there is one."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = [re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings]
    return Counter(made + re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    lost = []
    for _, link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchors(target)[anchor] != 1):  # of two headings it would be the first
            lost.append(link)
    assert lost == []


def test_there_are_no_links_of_another_form():
    """References and HTML are looked at by nobody here."""
    for page in PAGES:
        assert not re.search(r"\]\[|^\[[^\]]+\]: |<a |<img |<https?:", prose(page), re.MULTILINE), page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_picture_is_one(page):
    for mark, link in LINK.findall(prose(page)):
        if not mark:
            assert not link.endswith((".png", ".svg")), f"{link} is not shown"
            continue
        picture = page.parent / link
        if picture.suffix == ".svg":
            assert xml.etree.ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert picture.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("folder", ["pages", "shmexec", "native", "tests", "benchmarks"])
def test_files_that_are_spoken_of_are_there(folder):
    """In sentences of the pages, and in docstrings and comments of the code."""
    paths = PAGES if folder == "pages" else [path for path in SOURCES if path.relative_to(ROOT).parts[0] == folder]
    lost = []
    for path in paths:
        for name in FILE.findall(LINK.sub("", path.read_text())):
            if name not in NO_FILES and "." in name.rpartition("/")[2] and not (ROOT / name).exists():
                lost.append((path.relative_to(ROOT).as_posix(), name))
    assert lost == []


OF_READERS = {"edges.py", "stack.py", "file.py"}  # examples


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_source_files_that_are_named_alone_are_there(page):
    known = {path.name for path in [*SOURCES, *ROOT.glob("*.py"), *(ROOT / "docs").rglob("*")]}
    named = set(re.findall(r"`(\w+\.(?:py|pyx|pxi|h|c|pml|sh))`", page.read_text()))
    assert named - OF_READERS <= known


def test_files_are_found_where_they_are_spoken_of():
    assert FILE.findall("see `docs/security.md`, (native/hub.h), x/docs/a.md and tests/native/*.c") == [
        "docs/security.md",
        "native/hub.h",
        "tests/native",
    ]


def test_the_tree_of_contributing_has_every_part():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text[
        text.index("native/              C that") : text.index("```", text.index("native/              C that"))
    ]
    parts = {path.stem for path in (ROOT / "native").glob("*.h")}
    for path in (ROOT / "shmexec").iterdir():
        parts |= {f"{path.name}/"} if (path / "__init__.py").exists() else set()
        parts |= {path.name} if path.suffix == ".py" and path.name != "__main__.py" else set()
    assert {part for part in parts if not re.search(rf"(?<![\w/]){re.escape(part)}(?!\w)", tree)} == set()
