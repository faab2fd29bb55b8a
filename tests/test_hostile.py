"""Names and messages that nobody writes: each is an error, and no byte outside of the heap is read or written."""

import gc
import os
import pickle
import random
import time
from pathlib import Path

import numpy as np
import pytest
import tasks

import shmexec
from shmexec import _core
from shmexec.pickling.pickler import dump, load
from shmexec.transport.messages import Kind
from shmexec.worker.loop import Loop

FAR = 2**62
TYPES = ("<f8", "<i4", "|u1", "<c16", "|b1", "|S3", "<U2", "<M8[s]", "|V16", "|S0")


def sharing():
    array = shmexec.full(1000, 7.0)
    return array, _core.locate(array)


def rebuilt(place, offset=0, dtype="<f8", shape=(10,), strides=None, writeable=True, fortran=False):
    return _core.array(*place[:2], offset, dtype, shape, strides, writeable, fortran)


@pytest.mark.parametrize(
    "how",
    [
        {"offset": -8},
        {"offset": 8 * 1024 + 8},
        {"offset": 2**63 - 1},
        {"offset": -(2**63)},
        {"shape": (1025,)},
        {"shape": (2**61,)},
        {"shape": (2**31, 2**31)},
        {"shape": (2**32, 2**32)},
        {"shape": (-1,)},
        {"shape": (-3, -3)},
        {"shape": (2,), "strides": (8 * 1024,)},
        {"shape": (2,), "strides": (-8,)},
        {"shape": (5,), "strides": (FAR,)},  # four steps make 2**64, which is nought
        {"shape": (3,), "strides": (FAR,)},
        {"shape": (5, 5), "strides": (FAR, -FAR)},
        {"shape": (2, 2), "strides": (-(2**63), -(2**63))},
        {"shape": (2, 2), "strides": (8,)},
        {"shape": (2,), "strides": (8, 8)},
        {"shape": (0,), "offset": -1},
        {"shape": (0,), "offset": 2**40},
        {"dtype": "O"},
        {"dtype": np.dtype("O")},
        {"dtype": np.dtype([("a", "O")])},
        {"dtype": np.dtype(("f8", (3,)))},
    ],
    ids=str,
)
def test_a_name_that_leads_out_of_its_block_is_an_error(how):
    array, place = sharing()
    with pytest.raises(ValueError, match=r"reaches beyond its block|no array in shared memory|strides"):
        rebuilt(place, **how)
    if "strides" not in how and "offset" not in how:
        for call in (_core.own_array, _core.borrowed_array):
            with pytest.raises(ValueError, match=r"reaches beyond its block|no array in shared memory"):
                call(*place[:2], how.get("dtype", "<f8"), how.get("shape", (10,)), False)
    assert (array == 7).all()


@pytest.mark.parametrize("dtype", [None, 5, object(), float, "no type"])
def test_a_name_without_a_type_is_an_error(dtype):
    _array, place = sharing()
    for call in (
        lambda: rebuilt(place, dtype=dtype),
        lambda: _core.own_array(*place[:2], dtype, (3,), False),
        lambda: _core.borrowed_array(*place[:2], dtype, (3,), False),
        lambda: _core.small_array(b"", dtype, (0,), False),
    ):
        with pytest.raises(TypeError):
            call()


def test_small_arrays_have_no_objects_and_the_size_of_their_bytes():
    for data, dtype, shape in (bytes(8), "O", (1,)), (bytes(8), "<f8", (2,)), (b"", "<f8", (2**61,)):
        with pytest.raises((ValueError, MemoryError)):
            _core.small_array(data, dtype, shape, False)


def test_a_block_that_is_none_is_stale():
    _array, (number, birth, _offset) = sharing()
    for wrong in (number, birth + 1), (number, 0), (number + 1, birth), (2**32 - 1, birth), (2**31, 1), (0, 2**64 - 1):
        with pytest.raises(shmexec.StaleName):
            _core.array(*wrong, 0, "<f8", (1,), None, True, False)
        with pytest.raises(shmexec.StaleName):
            _core.borrow(*wrong)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_name_says_it_is_an_error_or_an_array_within_its_block(seed):
    rng = random.Random(seed)
    array, place = sharing()
    start, size = array.ctypes.data, _core.block_size(place[0])
    numbers = (0, 1, 2, 3, 8, 64, 1000, 2**31, 2**32, FAR, 2**63 - 1, -1, -8, -64, -(2**63))
    made = 0
    for _ in range(5000):
        nd = rng.randrange(4)
        shape = tuple(rng.choice(numbers[:8] if rng.random() < 0.8 else numbers) for _ in range(nd))
        strides = tuple(rng.choice(numbers) for _ in range(nd)) if rng.random() < 0.6 else None
        offset = rng.choice(numbers) if rng.random() < 0.5 else rng.randrange(0, size, 8)
        try:
            found = rebuilt(place, offset, rng.choice(TYPES), shape, strides, rng.random() < 0.5, rng.random() < 0.3)
        except (ValueError, MemoryError):
            continue
        made += 1
        low, high = _bounds(found)
        assert start <= low <= high <= start + size
        assert not found.size or found.flat[0].tobytes() is not None
    assert made > 50


def _bounds(array):
    low = high = array.ctypes.data
    if array.size:
        for stride, length in zip(array.strides, array.shape, strict=True):
            low, high = low + min(0, stride * (length - 1)), high + max(0, stride * (length - 1))
        high += array.itemsize
    return low, high


def test_bytes_of_a_message_that_were_changed_are_an_error_or_a_value():
    """Within the opcodes that a name is made of; the pickle of an array by name, its numbers changed at random."""
    rng = random.Random(5)
    array = shmexec.full((30, 40), 2.0)[::2, ::-1]
    packed = dump([array, {"a": array[1:]}])
    data = bytes(packed.data)
    places = [i for i in range(len(data)) if data[i : i + 1] in b"KMJ\x8a"]
    right = 0
    for _ in range(3000):
        changed = bytearray(data)
        changed[rng.choice(places) + 1] = rng.randrange(256)
        try:
            found = load(bytes(changed))
        except Exception:
            continue
        right += 1
        for one in pickle.loads(pickle.dumps([np.array(part) for part in _arrays(found)])):
            assert one.nbytes < 10**7
    assert right


def _arrays(value):
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for part in value for array in _arrays(part)] if isinstance(value, (list, tuple)) else []


# ---- messages ------------------------------------------------------------------------------------


def answer_nonsense(kind, call, first):
    """Through the worker's own channel."""
    loop = next(one for one in gc.get_objects() if isinstance(one, Loop))
    loop._channel.answer(kind, call, _core.Holds(), first, b"nonsense")
    loop._hub.ring()
    time.sleep(1000)


@pytest.mark.parametrize(
    ("kind", "first"), [(77, b""), (0, bytes(24)), (Kind.FAILURE, b"short"), (Kind.RESULT, b""), (Kind.ATOM, b"")]
)
def test_a_worker_that_answers_nonsense_is_ended(executor, kind, first):
    error = executor.submit(answer_nonsense, int(kind), 1, first).exception()
    assert isinstance(error, shmexec.WorkerDied)
    assert executor.submit(tasks.double, 4).result() == 8


# ---- other users ---------------------------------------------------------------------------------


memfd = pytest.mark.skipif(os.environ.get("SHMEXEC_SEGMENT", "memfd") != "memfd", reason="of the memfd kind")


@memfd
def test_the_segment_is_for_this_user_alone_and_cannot_be_shortened(script):
    program = """
import fcntl, os, stat, shmexec
kept = shmexec.zeros(10)
fd = os.open(shmexec.heap_info().kernel_name.rpartition(":")[0], os.O_RDWR)
assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600, oct(os.fstat(fd).st_mode)
seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
assert seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_GROW and seals & fcntl.F_SEAL_SEAL, seals
for size in 0, 4096, 1 << 50:
    try:
        os.ftruncate(fd, size)
    except PermissionError:
        pass
    else:
        raise SystemExit("it has another size")
"""
    script(program)


@pytest.mark.parametrize("kind", ["sysv", "posix"])
def test_the_segment_of_another_kind_is_for_this_user_alone(script, monkeypatch, kind):
    monkeypatch.setenv("SHMEXEC_SEGMENT", kind)
    program = """
import os, pathlib, stat, shmexec
kept = shmexec.zeros(10)
info = shmexec.heap_info()
name = info.kernel_name.rpartition(":")[0]
if info.kind == "posix":
    mode = stat.S_IMODE(os.stat("/dev/shm" + name).st_mode)
else:
    rows = [line.split() for line in pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()]
    (mode,) = [int(row[2], 8) & 0o777 for row in rows if row[1] == name.partition("-")[2]]
print(info.kind, oct(mode))
"""
    assert script(program).stdout == f"{kind} 0o600\n"


@memfd
def test_a_file_that_could_be_shortened_is_no_segment(script):
    """It has all that a heap has but the seals."""
    script("""
import dataclasses, os, shmexec
kept = shmexec.ones(10)
name = shmexec.name_of(kept)
source = os.open(name.segment.rpartition(":")[0], os.O_RDWR)
copy = os.memfd_create("shmexec", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
os.ftruncate(copy, os.fstat(source).st_size)
os.pwrite(copy, os.pread(source, 4096, 0), 0)
for number, error in (copy, shmexec.StaleName), (source, None):
    path = f"/proc/{os.getpid()}/fd/{number}:{os.fstat(number).st_ino}"
    try:
        shmexec.attach(dataclasses.replace(name, segment=path))
    except shmexec.StaleName as raised:
        assert error is shmexec.StaleName, raised
    else:
        assert error is None, "it was taken for a heap"
""")


def test_no_socket_has_a_name(make_executor):
    """Nobody can connect to the fork server or to a worker: their sockets are pairs."""
    executor = make_executor(2)
    pids = {executor.submit(tasks.pid).result() for _ in range(8)}
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    named = {line[6] for line in lines if len(line) > 7}
    for pid in {*pids, os.getpid()}:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
            except OSError:
                continue
            if target.startswith("socket:["):
                assert target[8:-1] not in named, f"{target} of {pid} has a name"
