"""`shmexec top`: what it shows of pools that work, and that it takes no part in anything."""

import ctypes
import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sequencer
import tasks

import shmexec
from shmexec import _core, heaps
from shmexec.__main__ import main
from shmexec.top import screen, text
from shmexec.top.looking import Heap, Look, Pool, Worker, look, with_rates


def mine(heaps):
    """This process's heap."""
    (heap,) = [heap for heap in heaps if heap.pid == os.getpid()]
    assert heap.name == _core.heap_figures()[1]
    return heap


def pool_now():
    (pool,) = mine(look().heaps).pools
    return pool


@pytest.mark.parametrize("array", [None, np.zeros(100_000)], ids=["atoms", "arrays"])
def test_what_runs_is_named_with_its_age_and_what_waits_is_counted(executor, gate, array):
    say, wait = gate("say"), gate("wait")
    wait.open(2)
    for _ in range(2):  # the second call of atoms takes no Python code in worker and parent
        executor.submit(tasks.pass_gates, say, wait, array).result()
        say.wait_open()
        executor.submit(tasks.add, 1, 2).result()
    futures = [executor.submit(tasks.pass_gates, say, wait, array) for _ in range(9)]
    say.wait_open()
    say.wait_open()
    sequencer.wait_until(lambda: pool_now().ahead + pool_now().waiting == 7)
    first = pool_now()
    assert first.pid == os.getpid()
    assert {worker.pid for worker in first.workers} == set(executor._processes)
    assert [(worker.state, worker.function) for worker in first.workers] == [("running", "pass_gates")] * 2
    assert first.waiting_seconds > 0 or not first.waiting
    sequencer.wait_until(lambda: all(worker.seconds > 0.01 for worker in pool_now().workers))
    wait.open(9)
    for future in futures:
        future.result()
    sequencer.wait_until(lambda: [worker.state for worker in pool_now().workers] == ["idle"] * 2)
    last = pool_now()
    assert (last.ahead, last.waiting, last.waiting_seconds) == (0, 0, 0.0)
    assert [worker.function for worker in last.workers] == ["", ""]


@pytest.mark.parametrize("in_order", [sorted, lambda names: sorted(names, reverse=True)])
def test_a_heap_is_shown_under_the_name_that_its_owner_has_for_it(lonely, monkeypatch, in_order):
    monkeypatch.setattr(heaps, "sorted", in_order, raising=False)  # a worker's pid may be the lower one
    assert len(mine(look().heaps).pools) == 1


def test_calls_of_atoms_that_wait_are_counted_too(lonely, gate):
    say, wait = gate("say"), gate("wait")
    first = lonely.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    futures = [lonely.submit(tasks.give, i) for i in range(1000)]
    pool = pool_now()
    assert 950 <= pool.ahead + pool.waiting <= 1050
    wait.open()
    first.result()
    assert [future.result() for future in futures] == list(range(1000))
    assert pool_now().waiting == 0


def test_a_dead_worker_is_not_shown_and_its_successor_is(lonely):
    (before,) = pool_now().workers
    os.kill(before.pid, signal.SIGKILL)
    sequencer.wait_until(lambda: before.pid not in lonely._processes)
    lonely.submit(tasks.pid).result()
    (after,) = pool_now().workers
    assert after.pid != before.pid
    assert {after.pid} == set(lonely._processes)


def test_bytes_are_those_that_crossed_in_between(lonely):
    array = shmexec.zeros(1_000_000)
    before = look()
    lonely.submit(tasks.give, array).result()
    lonely.submit(tasks.give, np.zeros(100_000)).result()
    after = look()
    heap = mine(with_rates(Look(0.0, before.heaps, before.traffic), Look(2.0, after.heaps, after.traffic)))
    assert heap.by_name == (8_000_000 + 8_000_000 + 800_000) / 2  # there, back, and the copy's way back
    assert heap.copied == 800_000 / 2
    assert heap.live >= array.nbytes


def test_who_looks_takes_no_part(lonely):
    code = (
        "import sys, json, shmexec.__main__ as m; m.main(['top', '--json', '--interval', '0.01']); "
        "print(sys.modules['shmexec']._core.heap_is_open())"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    told, _, opened = ran.stdout.rstrip().rpartition("\n")
    (heap,) = [heap for heap in json.loads(told) if heap["name"] == _core.heap_figures()[1]]
    assert opened == "False"
    assert heap["pid"] == os.getpid()
    assert heap["processes"] == 2
    assert [pool["pid"] for pool in heap["pools"]] == [os.getpid()]


def test_whatever_stands_there_it_reads_nothing_else(lonely):
    name = _core.heap_figures()[1]
    size = 68_096  # of a channel
    fake = shmexec.zeros(size, np.uint8)
    block, birth, _ = _core.locate(fake)
    maps = Path("/proc/self/maps").read_text().splitlines()
    (base,) = [
        int(start, 16)
        for start, end in (line.split()[0].split("-") for line in maps)
        if int(start, 16) <= fake.ctypes.data < int(end, 16)
    ]
    slots = (ctypes.c_uint32 * (512 * 16)).from_address(base + 4096)
    (own,) = [slot for slot in range(0, 512, 2) if slots[slot * 16 + 8] == os.getpid()]
    kept = {slot: bytes(ctypes.string_at(base + 4096 + slot * 64, 64)) for slot in range(3, 512, 2)}
    rng = random.Random(7)
    try:
        for _ in range(200):
            for slot in kept:
                ctypes.memmove(base + 4096 + slot * 64, rng.randbytes(64), 64)
            _core.look_at_pools(name)
        board = np.zeros(8, np.uint64)
        board[:2], board[2] = birth, block  # a channel and a hub that are none
        ctypes.memmove(base + 4096 + (own + 1) * 64, board.tobytes(), 64)
        words = fake.view(np.uint64)
        seen = 0
        for _ in range(500):
            fake[:] = np.frombuffer(rng.randbytes(size), np.uint8)
            words[8:17] = [rng.choice([0, 16, 64, 4096, 32768, 2**63, rng.getrandbits(64)]) for _ in range(9)]
            fake.view(np.uint32)[0] = own
            seen += len(_core.look_at_pools(name)[0])
        assert seen >= 500
    finally:
        for slot, data in kept.items():
            ctypes.memmove(base + 4096 + slot * 64, data, 64)
    assert lonely.submit(tasks.add, 1, 2).result() == 3
    assert len(pool_now().workers) == 1


# ---- what is shown ---------------------------------------------------------------------------------

WORKERS = (
    Worker(11, "running", "sharpen", 0.25, 1),
    Worker(12, "running", "regis[b]ter", 75.0, 0),
    Worker(0, "starting", "", 0.0, 0),
)
HEAPS = (
    Heap("/x", "memfd", 10, "python run.py", 3, 2, 3 << 20, 1 << 20, 1 << 30, 5e6, 0.0, (Pool(10, WORKERS, 4, 3.5),)),
    Heap("/y", "posix", 20, "python other.py", 1, 0, 0, 0, 1 << 30, 0.0, 0.0, ()),
)


def test_the_text_says_it_all():
    assert list(text.lines(HEAPS))[:10] == [
        "2 heaps, 1 pool, 3 workers, 2 calls running, 5 waiting",
        "",
        "heap of 10, memfd: python run.py",
        "  live 3.0 MiB in 2 blocks, warm 1.0 MiB, free 1.0 GiB, 3 processes",
        "  by name 4.8 MiB/s, copied 0 B/s",
        "  pool of 10: 3 workers, 2 running, 1 ahead, 4 waiting (some for 3.5 s)",
        "         PID  STATE           FOR  AHEAD  FUNCTION",
        "          11  running      250 ms      1  sharpen",
        "          12  running        1:15         regis[b]ter",
        "           -  starting",
    ]


def test_once_prints_text_and_a_picture_is_written(lonely, tmp_path, capsys):
    assert main(["top", "--once", "--interval", "0.01"]) == 0
    assert f"pool of {os.getpid()}: 1 worker, 0 running, 0 ahead, 0 waiting" in capsys.readouterr().out
    pytest.importorskip("rich")
    assert main(["top", "--picture", str(tmp_path / "top.svg"), "--interval", "0.01"]) == 0
    assert "<svg" in (tmp_path / "top.svg").read_text()
    assert main(["top", "--picture", "/proc/top.svg", "--interval", "0.01"]) == 2
    assert "/proc/top.svg cannot be written" in capsys.readouterr().err


def test_without_rich_a_picture_names_the_command_to_type(monkeypatch, capsys):
    monkeypatch.setattr(screen, "has_rich", lambda: False)
    assert main(["top", "--picture", "x.svg"]) == 2
    assert 'pip install "shmexec[top]"' in capsys.readouterr().err


@pytest.mark.parametrize("is_there", [True, False], ids=["rich", "plain"])
def test_on_a_terminal_it_is_drawn_again_until_q_is_pressed(lonely, is_there, tmp_path):
    if is_there:
        pytest.importorskip("rich")
    code = (
        "import sys; from shmexec.top import screen; "
        f"screen.has_rich = lambda: {is_there}; from shmexec.__main__ import main; sys.exit(main(['top']))"
    )
    ours, theirs = pty.openpty()
    drawn = []
    program = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    reader = threading.Thread(target=read_all, args=(ours, drawn))
    reader.start()
    try:
        sequencer.wait_until(lambda: b"pool of" in b"".join(drawn) or program.poll() is not None)
        assert program.poll() is None, b"".join(drawn).decode()
        os.write(ours, b"q")
        assert program.wait() == 0
    finally:
        program.kill()
        os.close(theirs)
        reader.join()
        os.close(ours)
    shown = b"".join(drawn)
    assert b"1 worker" in shown
    assert shown.rstrip().endswith(b"\x1b[?1049l") or b"\x1b[?1049l" in shown[-40:]  # the screen is as it was


def read_all(descriptor, into):
    while True:
        try:
            data = os.read(descriptor, 4096)
        except OSError:  # the other side is closed
            return
        into.append(data)
