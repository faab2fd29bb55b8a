"""The table and the picture of docs/internals/memory-map.md have the sizes and places that native/layout.h makes."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILER = shlex.split(os.environ.get("CC", "cc"))
PAGE = (ROOT / "docs/internals/memory-map.md").read_text()

PROGRAM = """
#include "layout.h"
#include <stdio.h>
#define LINE(name, at, size) printf("%s %llu %llu\\n", name, (unsigned long long)(at), (unsigned long long)(size))
int main(void) {
    uint64_t n = ((uint64_t)1 << 40) / SX_EXTENT_BYTES;
    LINE("header", 0, sizeof(sx_header_t));
    LINE("slots", SX_AT_SLOTS, sizeof(sx_slot_t));
    LINE("tickets", SX_AT_TICKETS, 8);
    LINE("owners", SX_AT_OWNERS, 8);
    LINE("records", SX_AT_EXTENTS(n), sizeof(sx_extent_t));
    LINE("marks", SX_AT_MARKS(n), sizeof(sx_marks_t));
    LINE("blocks", SX_AT_BLOCKS(n), SX_EXTENT_BLOCKS * sizeof(sx_block_t));
    LINE("data", SX_AT_DATA(n), SX_EXTENT_BYTES);
    LINE("all", SX_SEGMENT_BYTES(n), SX_TICKETS);
    return 0;
}
"""


def in_words(size):
    """2.3 MiB: as the page writes it."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{round(size / (1 << power), 1):g} {unit}"
    return f"{size} bytes" if size else "0"


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("layout")
    (folder / "layout.c").write_text(PROGRAM)
    command = [*COMPILER, "-std=gnu11", f"-I{ROOT / 'native'}", "-o", folder / "layout", folder / "layout.c"]
    subprocess.run(command, check=True)
    lines = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: (int(at), int(size)) for name, at, size in map(str.split, lines)}


def test_the_table_has_the_places_and_sizes_of_the_code(layout):
    rows = re.findall(r"^\| (?:extent )?(\w+) \| ([\d.]+(?: \w+)?) \| ([\d.]+ \w+) \|", PAGE, re.MULTILINE)
    made = [(name, in_words(at), in_words(size)) for name, (at, size) in layout.items() if name != "all"]
    assert rows == made
    assert f"{layout['all'][0] / (1 << 40):.2f} TiB of addresses" in PAGE


def test_the_picture_has_them_too(layout):
    picture = (ROOT / "docs/internals/memory-map.svg").read_text()
    shown = re.findall(r">(\w+)</text>\n<text[^>]*>at ([^<]+)<", picture)
    assert shown == [(name, in_words(at)) for name, (at, _) in layout.items() if name != "all"]
    assert f"{layout['all'][0] / (1 << 40):.2f} TiB of addresses" in picture
