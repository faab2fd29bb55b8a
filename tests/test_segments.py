"""The three kinds of segment: chosen, tried in turn, named, found by strangers, listed, swept."""

import json
import os
import pickle
import platform
import signal
import subprocess
import sys

import pytest
import sequencer
from kernel_memory import Account
from sandbox import REFUSE

KINDS = ["memfd", "sysv", "posix"]

needs_a_filter = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the test knows the numbers of two architectures"
)


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", request.param)
    return request.param


def command(*arguments):
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "shmexec", *arguments],
        capture_output=True,
        text=True,
        env=sequencer.environment(),
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


WORK = """
import os, sys
import numpy as np
import shmexec
from multiprocessing import get_context

def in_a_fork(array):
    if (pid := os.fork()) == 0:
        seen = array[0] == 3
        array[:] = 5
        os._exit(0 if seen and (array == 5).all() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), float(array[0])

def add(to, array):
    to += 1
    return float(to.sum() + array.sum())

if __name__ == "__main__":
    import functools
    array = shmexec.full(100_000, 3.0)
    for method in "fork", "forkserver", "spawn":
        with shmexec.SharedExecutor(2, get_context(method)) as executor:
            assert executor.submit(np.add, array, 1).result()[7] == 4
            assert executor.submit(in_a_fork, array).result() == (0, 3.0)
            plain = np.zeros(100_000)
            assert list(executor.map(functools.partial(add, plain), [array] * 4)) == [400_000.0] * 4
            assert plain.sum() == 0
            assert executor.stats().bytes_by_name_in > 0
    print(shmexec.heap_info().kind)
"""


def test_each_kind_carries_a_pool_under_each_start_method(kind, script):
    assert script(WORK).stdout.split() == [kind]


def test_a_kind_that_does_not_exist_is_an_error_that_names_the_variable(script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", "mmap")
    ran = script("import shmexec; shmexec.ones(3)", check=False)
    assert "ValueError" in ran.stderr
    assert "SHMEXEC_SEGMENT" in ran.stderr
    assert "memfd, sysv, posix" in ran.stderr


TRY_IN_TURN = (
    REFUSE
    + """
import sys, shmexec
if __name__ == "__main__":
    refuse(*sys.argv[1:])
    with shmexec.SharedExecutor(1) as executor:
        assert executor.submit(sum, shmexec.ones(10)).result() == 10
    print(shmexec.heap_info().kind)
"""
)


@needs_a_filter
@pytest.mark.parametrize(("refused", "kind"), [(["memfd_create"], "sysv"), (["memfd_create", "shmget"], "posix")])
def test_a_kind_that_is_refused_gives_way_to_the_next_and_the_log_says_why(refused, kind, script, monkeypatch):
    monkeypatch.delenv("SHMEXEC_SEGMENT", raising=False)
    ran = script(TRY_IN_TURN, *refused, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [kind]
    assert f"the shared heap is a {kind} segment: memfd: memfd_create is blocked (seccomp)" in ran.stderr


@needs_a_filter
def test_a_kind_that_is_asked_for_and_refused_is_an_error_with_the_reason(script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", "sysv")
    ran = script(TRY_IN_TURN, "shmget", check=False)
    assert ran.returncode == 1
    assert "PermissionError" in ran.stderr
    assert "no shared memory can be had (sysv: shmget is blocked (seccomp)" in ran.stderr


STRANGER = """
import pickle, sys, dataclasses
import shmexec
name = pickle.loads(bytes.fromhex(sys.argv[1]))
array = shmexec.attach(name)
print(array.sum())
array[:] = 2
where, _, which = name.segment.rpartition(":")
for other in f"{where}:{int(which) + 1}", f"{where}:", where, f"{where}:{which}x":
    try:
        shmexec.attach(dataclasses.replace(name, segment=other))
    except shmexec.StaleName:
        print("stale")
"""
OWNER = """
import pickle, sys, shmexec
array = shmexec.ones(1000)
print(pickle.dumps(shmexec.name_of(array)).hex(), flush=True)
sys.stdin.readline()
assert (array == 2).all()
"""


def test_a_stranger_finds_an_array_by_its_name_and_no_other(kind, script, tmp_path):
    with script.start(OWNER) as owner:
        name = owner.stdout.readline().strip()
        (tmp_path / "other").mkdir()
        ran = sequencer.Script(tmp_path / "other")(STRANGER, name)
        assert ran.stdout.split() == ["1000.0", *["stale"] * 4]
        owner.communicate("\n")
    assert owner.returncode == 0
    late = "import pickle, sys, shmexec\nshmexec.attach(pickle.loads(bytes.fromhex(sys.argv[1])))"
    assert "StaleName" in script(late, name, check=False).stderr


def test_ls_lists_the_heap_of_a_process_with_its_figures(kind, script):
    with script.start(OWNER) as owner:
        segment = pickle.loads(bytes.fromhex(owner.stdout.readline().strip())).segment
        listed = [one for one in json.loads(command("ls", "--json")) if one["pid"] == owner.pid]
        text = command("ls")
        assert [one["name"] for one in listed] == [segment]
        assert listed[0]["kind"] == kind
        assert listed[0]["processes"] == [owner.pid]
        assert listed[0]["blocks"] == 1
        assert 8000 <= listed[0]["bytes_in_use"] <= listed[0]["bytes_resident"] <= listed[0]["bytes_limit"]
        assert "program.py" in listed[0]["command"]
        assert any(line.split()[:2] == [kind, str(owner.pid)] for line in text.splitlines())
        os.kill(owner.pid, signal.SIGKILL)  # it never learns that its array is not 2
    owner.wait()


needs_dev_shm = pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm to write in")


@needs_dev_shm
def test_ls_says_what_is_no_heap_and_does_not_read_it(tmp_path):
    start = start_time_of(os.getpid())
    fakes = {f"/dev/shm/shmexec-{os.getpid()}-{start}-{n}": text for n, text in enumerate([b"", b"x" * 100_000], 50)}
    try:
        for path, text in fakes.items():
            with open(path, "wb") as file:
                file.write(text)
        listed = {one["name"].partition(":")[0]: one for one in json.loads(command("ls", "--json"))}
        for path in fakes:
            assert "is not the name of a segment" in listed[path.removeprefix("/dev/shm")]["problem"]
    finally:
        for path in fakes:
            os.unlink(path)


def start_time_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


@needs_dev_shm
@pytest.mark.parametrize("sweeper", ["the next heap", "gc"])
def test_names_of_dead_owners_are_swept_and_those_of_living_ones_are_not(sweeper, script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", "posix")
    killed = script("import os, shmexec; a = shmexec.ones(9); os.kill(os.getpid(), 9)", check=False)
    assert killed.returncode == -signal.SIGKILL
    with script.start(OWNER) as owner:
        name = pickle.loads(bytes.fromhex(owner.stdout.readline().strip())).segment.partition(":")[0]
        living = os.getpid() if sweeper == "gc" else owner.pid
        reused = f"/dev/shm/shmexec-{living}-1"  # that pid, but another start time
        open(reused, "w").close()
        out = command("gc") if sweeper == "gc" else script("import shmexec; shmexec.ones(3)").stdout
        left = {entry for entry in os.listdir("/dev/shm") if entry.startswith("shmexec-")}
        assert os.path.basename(reused) not in left
        assert name.removeprefix("/") in left
        pids = {int(entry.split("-")[1]) for entry in left}
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        if sweeper == "gc":
            assert "removed posix /shmexec-" in out
            assert "nothing to remove" in command("gc")
        os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    command("gc")


@needs_dev_shm
def test_a_name_stays_while_children_of_its_dead_owner_live(script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", "posix")
    source = """
import os, sys, shmexec
array = shmexec.ones(1000)
name = shmexec.heap_info().kernel_name.partition(":")[0]
if os.fork():
    os.kill(os.getpid(), 9)
while os.getppid() == int(name.split("-")[1]):
    pass
print(name, os.getpid(), flush=True)
sys.stdin.readline()
"""
    with script.start(source) as program:
        name, child = program.stdout.readline().split()
        command("gc")
        assert os.path.exists(f"/dev/shm{name}")
        program.stdin.write("\n")
        program.stdin.flush()
        sequencer.wait_until(lambda: sequencer.is_gone(int(child)))
        command("gc")
        assert not os.path.exists(f"/dev/shm{name}")


@pytest.mark.parametrize("arguments", [["--rounds", "10"], ["--rounds", "2", "--pool"]], ids=["heap", "pool"])
def test_after_everything_was_killed_the_kernel_has_nothing_left(kind, arguments, beside_tests):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.killing", *arguments, "--seed", "3"],
        capture_output=True,
        text=True,
        env=sequencer.environment(),
        cwd=beside_tests,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_dev_shm
def test_the_account_that_judges_this_sees_what_a_dead_process_has_left():
    with Account() as account:
        path = f"/dev/shm/shmexec-test-account-{os.getpid()}"
        source = f"open({path!r}, 'wb').write(bytes({account.tolerance + (8 << 20)}))"
        try:
            subprocess.run([sys.executable, "-c", source], check=True, preexec_fn=account.join)
            assert account.left(patience=0.5) >= 4 << 20
        finally:
            os.unlink(path)
        assert account.left() == 0


WITHOUT_STANDARD_DESCRIPTORS = """
import multiprocessing, os, sys
from shmexec import SharedExecutor, ones

def tell(array):
    for file in sys.stdout, sys.stderr:
        if file is not None:
            print("hello " * 1000, file=file, flush=True)
    return array.sum()

def main():
    method = sys.argv[2] and multiprocessing.get_context(sys.argv[2]) or None
    with SharedExecutor(2, method) as ex:
        sums = list(ex.map(tell, [ones(10_000)] * 8))
    with open(sys.argv[1], "w") as file:
        file.write(repr(set(sums)))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", [None, "fork", "forkserver", "spawn"])
def test_what_a_daemons_workers_print_does_not_go_into_the_heap(tmp_path, method):
    """It has closed its standard descriptors: the next files that are opened get their numbers."""
    script, said = tmp_path / "script.py", tmp_path / "said"
    script.write_text(WITHOUT_STANDARD_DESCRIPTORS)
    close = 'exec "$0" "$@" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", close, sys.executable, script, said, method or ""], check=True)
    assert "{" in said.read_text()
    assert "10000.0" in said.read_text()
