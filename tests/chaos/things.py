"""What travels: arrays of all kinds, alone and inside other objects; each made anew from its name and a seed.

Both sides make the same thing from the same two numbers, so each can tell for itself what the other should have.
"""

import dataclasses
import hashlib
import struct

import numpy as np

import shmexec

STRUCTURED = np.dtype([("id", "i4"), ("at", "f8", (3,)), ("name", "S5")])


@dataclasses.dataclass
class Record:
    """Arrays in an object of a class."""

    name: str
    image: np.ndarray
    mask: np.ndarray


def _numbers(rng, least=1, most=400):
    return rng.standard_normal(int(rng.integers(least, most)))


def _large(rng):
    return rng.standard_normal(int(rng.integers(20_000, 150_000)))


def _table(rng):
    table = np.zeros(int(rng.integers(1, 5000)), STRUCTURED)
    table["id"] = rng.integers(0, 1000, len(table))
    table["at"] = rng.standard_normal((len(table), 3))
    table["name"] = b"abc"
    return table


def _matrix(rng):
    return rng.standard_normal((int(rng.integers(1, 300)), int(rng.integers(1, 300))))


def _readonly(array):
    array.flags.writeable = False
    return array


def _views(rng):
    base = shmexec.share(_large(rng))
    return [base[::2], base[::-1], base[5:500], base[5:500].reshape(-1, 5).T, base]


def _shared(make):
    return lambda rng: shmexec.share(make(rng))


def _huge(rng):
    made = shmexec.empty(int(rng.integers(17 << 20, 40 << 20)), "u1")
    made[:] = int(rng.integers(256))
    made[:: 1 << 16] = 7
    return made


PLAIN = {
    "small": _numbers,
    "large": _large,
    "structured": _table,
    "fortran": lambda rng: np.asfortranarray(_matrix(rng)),
    "strided": lambda rng: _large(rng)[::3],
    "transposed": lambda rng: _matrix(rng).T,
    "empty": lambda rng: np.empty((0, 3), "f4"),
    "scalar": lambda rng: np.array(rng.standard_normal()),
    "complex": lambda rng: _large(rng) + 1j,
    "integers": lambda rng: rng.integers(0, 255, int(rng.integers(1, 200_000))).astype("u1"),
    "dates": lambda rng: rng.integers(0, 10**9, int(rng.integers(1, 20_000))).astype("M8[s]"),
    "strings": lambda rng: np.full(int(rng.integers(1, 20_000)), "abcä"),
    "objects": lambda rng: np.array([1, "two", None, int(rng.integers(9))], object),
}
THINGS = {
    **PLAIN,
    **{f"shared {name}": _shared(make) for name, make in PLAIN.items() if name != "objects"},
    "shared read-only": lambda rng: _readonly(shmexec.share(_large(rng))),
    "plain read-only": lambda rng: _readonly(_large(rng)),
    "shared strided view": lambda rng: shmexec.share(_large(rng))[3::7],
    "shared backwards": lambda rng: shmexec.share(_matrix(rng))[::-1, ::-2],
    "shared field": lambda rng: shmexec.share(_table(rng))["at"],
    "shared broadcast": lambda rng: np.broadcast_to(row := shmexec.share(_numbers(rng)), (3, len(row))),
    "views of one block": _views,
    "one array twice": lambda rng: [shmexec.share(_large(rng))] * 2,
    "a dict": lambda rng: {"a": _large(rng), "b": shmexec.share(_large(rng)), "c": [_numbers(rng)] * 3, "d": "text"},
    "a record": lambda rng: Record("r", _matrix(rng), shmexec.share(_matrix(rng)) > 0),
    "records": lambda rng: [Record(str(i), shmexec.share(_matrix(rng)), _large(rng)) for i in range(3)],
    "masked": lambda rng: np.ma.masked_array(values := _large(rng), values > 0),
    "bytes": lambda rng: rng.bytes(int(rng.integers(1, 300_000))),
    "bytearray": lambda rng: bytearray(rng.bytes(int(rng.integers(1, 300_000)))),
    "text": lambda rng: "ä" * int(rng.integers(1, 200_000)),
    "memoryview": lambda rng: memoryview(_large(rng)),
    "a number": lambda rng: float(rng.standard_normal()),
    "nothing": lambda rng: None,
    "huge": _huge,
}
NAMES = tuple(THINGS)
COMMON = tuple(name for name in NAMES if name != "huge")


def make(name, seed):
    """The thing of this name and seed."""
    return THINGS[name](np.random.default_rng(seed))


def pick(rng):
    """The name of some thing; the huge ones, which take whole extents, now and then."""
    if rng.random() < 0.01:
        return "huge"
    return COMMON[int(rng.integers(len(COMMON)))]


def digest(thing):
    """A number that says all of a thing: types, shapes, order of the elements, values."""
    sum_ = hashlib.blake2b(digest_size=8)
    _feed(sum_, thing)
    return int.from_bytes(sum_.digest(), "little") >> 1


def _feed(sum_, thing):
    sum_.update(type(thing).__name__.encode())
    if isinstance(thing, np.ma.MaskedArray):
        _feed(sum_, thing.filled(0))
        _feed(sum_, np.ma.getmaskarray(thing))
    elif isinstance(thing, np.ndarray):
        sum_.update(repr((thing.dtype.descr, thing.shape)).encode())
        if thing.dtype.hasobject:
            _feed(sum_, thing.tolist())
        else:
            sum_.update(thing.tobytes())
    elif isinstance(thing, dict):
        for key in sorted(thing):
            _feed(sum_, key)
            _feed(sum_, thing[key])
    elif isinstance(thing, (list, tuple)):
        sum_.update(struct.pack("<q", len(thing)))
        for part in thing:
            _feed(sum_, part)
    elif dataclasses.is_dataclass(thing):
        _feed(sum_, [getattr(thing, field.name) for field in dataclasses.fields(thing)])
    elif isinstance(thing, memoryview):
        _feed(sum_, np.asarray(thing))
    elif isinstance(thing, str):
        sum_.update(thing.encode())
    elif isinstance(thing, (bytes, bytearray)):
        sum_.update(thing)
    else:
        sum_.update(repr(thing).encode())
