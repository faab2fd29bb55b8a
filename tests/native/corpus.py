"""The corpus of a fuzzer: one file with a line for each input, in hexadecimal; libFuzzer wants a folder of files.

python tests/native/corpus.py unpack tests/native/corpus/fuzz_ring.hex FOLDER
python tests/native/corpus.py pack FOLDER tests/native/corpus/fuzz_ring.hex
"""

import sys
from pathlib import Path


def unpack(source, folder):
    folder.mkdir(exist_ok=True)
    for i, line in enumerate(source.read_text().split("\n")[:-1]):
        (folder / f"{i:04}").write_bytes(bytes.fromhex(line))


def pack(folder, target):
    inputs = {path.read_bytes() for path in folder.iterdir() if path.is_file()}
    target.write_text("".join(f"{data.hex()}\n" for data in sorted(inputs, key=lambda data: (len(data), data))))


if __name__ == "__main__":
    {"pack": pack, "unpack": unpack}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
