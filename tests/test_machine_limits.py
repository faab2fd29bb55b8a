"""Under limits: a clear error or a working fallback for each, no SIGBUS, no hang."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sequencer
from sandbox import REFUSE

import shmexec

FILL = """
import resource, sys
import numpy as np
import shmexec

def double(array):
    return array * 2

def fill(most=10_000):
    held = []
    try:
        while len(held) < most:
            held.append(shmexec.full(131_072, 7.0))  # 1 MiB, every page of it written
    except shmexec.SharedMemoryFull as error:
        return held, str(error)
    return held, ""

def small_ones(most=200_000):
    held = []
    try:
        while len(held) < most:
            held.append(shmexec.full(4, 1.0))  # descriptors, rather than data
    except shmexec.SharedMemoryFull:
        pass
    return held

def use_up():
    held, said = fill()
    assert said, len(held)
    assert all((array == 7).all() for array in held)
    more = small_ones()
    assert all((array == 1).all() for array in more)
    del more
    count = len(held)
    del held
    again, _ = fill(count - 8)
    assert len(again) >= count - 8, (len(again), count)
    return count, said
"""

TMPFS = (
    FILL
    + """
if __name__ == "__main__":
    assert shmexec.heap_info().kind == "posix"
    count, said = use_up()
    assert 20 <= count <= 64, count
    print(said)
"""
)

AND_A_POOL = """
    with shmexec.SharedExecutor(2) as executor:
        arrays = [np.full(200_000, float(i)) for i in range(100)]
        for i, result in enumerate(executor.map(double, arrays, buffersize=4)):
            assert result[0] == 2 * i
            del result
        held, said = fill()
        assert executor.submit(sum, [1, 2]).result() == 3  # the ring is there
        del held
        assert executor.submit(double, np.ones(200_000)).result().sum() == 400_000
"""
WHOLE = """
    print("whole")
"""


def can_mount():
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=1m tmpfs /mnt"
    return subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True).returncode == 0


def in_namespace(mounts, path):
    line = f'{mounts} && exec "$0" -W error "$1"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", line, sys.executable, path],
        capture_output=True,
        text=True,
        env=sequencer.environment(),
        timeout=100,
    )
    return ran


@pytest.fixture
def program(tmp_path):
    def write(source):
        path = tmp_path / "program.py"
        path.write_text(source)
        return str(path)

    return write


def test_a_full_dev_shm_is_an_error_and_room_is_used_again(program, script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", "posix")
    if can_mount():
        ran = in_namespace("mount -t tmpfs -o size=64m tmpfs /dev/shm", program(TMPFS + AND_A_POOL + WHOLE))
    else:  # a file that may not be larger, which is as much for one process: others have their parts further up in it
        limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (96 << 20, 96 << 20))"
        alone = TMPFS.replace("    assert shmexec.heap_info()", f"    {limit}\n    assert shmexec.heap_info()")
        ran = script(alone + WHOLE)
    assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
    assert "no shared memory for" in ran.stdout
    assert ran.stdout.endswith("whole\n")


NO_DEV_SHM = (
    REFUSE
    + """
import sys, os
import shmexec
if __name__ == "__main__":
    assert not os.path.exists("/dev/shm")
    with shmexec.SharedExecutor(2) as executor:
        assert executor.submit(sum, shmexec.ones(10)).result() == 10
    print(shmexec.heap_info().kind)
"""
)
WITHOUT = (
    "d=/mnt && mount -t tmpfs tmpfs $d && for f in null zero urandom random; do : > $d/$f && "
    "mount --bind /dev/$f $d/$f; done && mount --rbind $d /dev"
)


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces here, and /dev/shm is not ours to remove")
def test_without_dev_shm_a_pool_works_and_a_posix_heap_is_an_error_that_says_so(program, monkeypatch):
    monkeypatch.delenv("SHMEXEC_SEGMENT", raising=False)
    path = program(NO_DEV_SHM)
    ran = in_namespace(WITHOUT, path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "memfd\n"
    monkeypatch.setenv("SHMEXEC_SEGMENT", "posix")
    ran = in_namespace(WITHOUT, path)
    assert ran.returncode == 1
    assert "no shared memory can be had (posix: there is no /dev/shm" in ran.stderr


ADDRESSES = (
    FILL
    + """
if __name__ == "__main__":
    limit = 3 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with shmexec.SharedExecutor(2) as executor:
        assert executor.submit(double, shmexec.ones(100_000)).result().sum() == 200_000
        info = shmexec.heap_info()
        assert info.bytes_limit <= limit / 2, info
        count, said = use_up()
        assert count >= 256, count
        print(said)
"""
)


@pytest.mark.parametrize("kind", ["memfd", "sysv", "posix"])
def test_where_addresses_are_scarce_the_heap_is_smaller(kind, script, monkeypatch):
    monkeypatch.setenv("SHMEXEC_SEGMENT", kind)
    assert "no shared memory for" in script(ADDRESSES).stdout


DESCRIPTORS = (
    FILL
    + """
from concurrent.futures.process import BrokenProcessPool
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with shmexec.SharedExecutor(6) as executor:
        arrays = [shmexec.ones(10_000) for _ in range(500)]  # no descriptor for an array
        assert all(result.sum() == 20_000 for result in executor.map(double, arrays))
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, 64))
    executor = shmexec.SharedExecutor(6)
    try:
        print(executor.submit(double, arrays[0]).result().sum())
    except (OSError, BrokenProcessPool) as error:
        print("refused", error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    executor.shutdown()
"""
)


def test_few_descriptors_are_enough_for_a_pool_and_too_few_are_an_error(script):
    out = script(DESCRIPTORS).stdout
    assert out == "20000.0\n" or ("refused" in out and "open files" in out)


PROCESSES = (
    FILL
    + """
from multiprocessing import get_context
from concurrent.futures.process import BrokenProcessPool
if __name__ == "__main__":
    import os
    context = None if sys.argv[1] == "None" else get_context(sys.argv[1])
    array = shmexec.ones(10)
    with shmexec.SharedExecutor(1, context) as executor:
        executor.submit(double, array).result()  # all that is needed is loaded: another user may not be able to read it
    if os.geteuid() == 0:
        os.setuid(54_321)  # root may start as many as it likes
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        with shmexec.SharedExecutor(2, context) as executor:
            executor.submit(double, array).result()
    except (BlockingIOError, BrokenProcessPool) as error:
        print("refused", type(error).__name__, error)
"""
)


def test_no_process_to_be_had_is_an_error_that_says_so_and_no_hang(script, method):
    said = script(PROCESSES, method).stdout
    assert said.startswith("refused")
    assert "RLIMIT_NPROC" in said


SERVER_WITHOUT_PROCESSES = """
import os, sys
import shmexec, tasks
from concurrent.futures.process import BrokenProcessPool
from sequencer import Gate
from shmexec.pool import fork_server

folder = sys.argv[1]
is_full = folder + "/full"
fork_server.COMMAND = f'''
import os
fork = os.fork
def fork_or_refuse():
    if os.path.exists({is_full!r}):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = fork_or_refuse
''' + fork_server.COMMAND

def pool():
    executor = shmexec.SharedExecutor(2)
    assert executor.submit(tasks.double, 4).result() == 8
    return executor

kept = pool()
executor = pool()
say, wait = Gate(folder + "/say"), Gate(folder + "/wait")
open(is_full, "w").close()
busy = executor.submit(tasks.pass_gates, say, wait, "done")
say.wait_open()
others = [executor.submit(tasks.double, i) for i in range(10)]  # of the one that there is
wait.open()
assert busy.result() == "done"
assert [future.result() for future in others] == list(range(0, 20, 2))
assert executor.stats().workers_started == 1
print(executor.submit(os._exit, 7).exception().exitcode)  # who forked it lives, and has seen its end
try:
    print(executor.submit(tasks.double, 4).result())
except BrokenProcessPool as error:
    print(error)
os.remove(is_full)
executor.shutdown()
with pool() as executor:
    print(executor.submit(tasks.double, 4).result())
print(kept.submit(os._exit, 7).exception().exitcode)
kept.shutdown()
"""


def test_a_fork_server_that_may_not_fork_says_so_and_lives(script, tmp_path):
    ran = script(SERVER_WITHOUT_PROCESSES, tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    code, reason, *rest = ran.stdout.splitlines()
    assert code == "7"
    assert "no worker process could be started" in reason
    assert "RLIMIT_NPROC" in reason
    assert rest == ["8", "7"]


SERVER_WITHOUT_DESCRIPTORS = """
import os, sys
import shmexec, tasks
from sequencer import Gate
from shmexec.pool import fork_server

limit = int(sys.argv[1])
less = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\\n"
fork_server.COMMAND = less + fork_server.COMMAND

say, wait = Gate("say"), Gate("wait")
with shmexec.SharedExecutor(20) as executor:
    server = executor.submit(os.getppid).result()
    calls = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(20)]
    workers = len(executor._processes)
    assert 2 < workers < 20
    for _ in range(20):
        say.wait_open()
        wait.open()
    assert [call.result() for call in calls] == list(range(20))
    assert {executor.submit(os.getppid).result() for _ in range(9)} == {server}
    assert executor.stats().workers_started == workers
"""


@pytest.mark.parametrize("limit", [32, 33])  # what is not to be had: a place for the next worker's link, or its pidfd
def test_a_fork_server_that_may_have_no_more_descriptors_says_so_and_lives(script, limit):
    ran = script(SERVER_WITHOUT_DESCRIPTORS, limit, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "no more worker processes can be started: " in ran.stderr
    assert "RLIMIT_NOFILE" in ran.stderr
    assert "Traceback" not in ran.stderr


GROUPED = (
    FILL
    + """
if __name__ == "__main__":
    from shmexec import _core
    limit = 256 << 20
    assert _core.machine_memory() == limit, _core.machine_memory()
    assert _core.usable_cores() == 1
    assert shmexec.heap_info().bytes_limit <= 0.8 * limit
    with shmexec.SharedExecutor(2) as executor:
        count, said = use_up()
        held, _ = fill()
        assert executor.submit(sum, [1, 2]).result() == 3
        del held
        assert executor.submit(double, np.ones(200_000)).result().sum() == 400_000
    print(said)
"""
)


@pytest.fixture
def control_group():
    """Files whose writers are in a group with a quota of one core and 256 MiB of memory."""
    root, name = Path("/sys/fs/cgroup"), f"shmexec-test-{os.getpid()}"
    settings = {
        root / "cpu" / name / "cpu.cfs_quota_us": "100000",
        root / "memory" / name / "memory.limit_in_bytes": "256M",
    }
    if (root / "cgroup.controllers").exists():  # version 2
        settings = {root / name / "cpu.max": "100000 100000", root / name / "memory.max": "256M"}
    folders = {path.parent for path in settings}
    try:
        try:
            for folder in folders:
                folder.mkdir()
            for path, value in settings.items():
                path.write_text(value)
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield [folder / "cgroup.procs" for folder in folders]
    finally:
        for folder in folders:
            sequencer.wait_until(
                lambda folder=folder: is_removed(folder)
            )  # the last of its processes may just be ending


def is_removed(folder):
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def test_a_control_group_bounds_memory_and_cores(script, control_group):
    paths = list(map(str, control_group))
    join = f"import os, pathlib\nfor path in {paths}:\n    pathlib.Path(path).write_text(str(os.getpid()))\n"
    assert "no shared memory for" in script(join + GROUPED).stdout


def be_killed_for_memory(groups, no_swap):
    for path in groups:
        path.write_text(str(os.getpid()))
    for path in no_swap:
        path.write_text("0" if path.name.endswith("max") else "256M")
    kept = []
    while True:
        kept.append(bytearray(b"x") * (16 << 20))


def test_a_worker_that_the_kernel_kills_for_memory_fails_its_call_alone(executor, control_group):
    names = "memory.swap.max", "memory.memsw.limit_in_bytes"  # of version 2, and of version 1
    no_swap = [path for group in control_group for name in names if (path := group.parent / name).exists()]
    array = shmexec.ones(1000)
    error = executor.submit(be_killed_for_memory, control_group, no_swap).exception()
    assert isinstance(error, shmexec.WorkerDied)
    assert error.exitcode == -9
    assert list(executor.map(np.sum, [array, array, 3])) == [1000, 1000, 3]
    assert executor.stats().workers_died == 1
