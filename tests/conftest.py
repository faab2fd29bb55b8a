"""What every test gets: pools, gates, start methods, and a look around afterwards for whatever it left behind."""

import fcntl
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import uuid
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

import shmexec
from shmexec import _core

_HERE = Path(__file__).parent
for _folder in (_HERE, _HERE.parent):  # workers import helpers and test modules by name
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

import sequencer  # noqa: E402

# What descends from this process by exec carries it, also when it has lost its parent.
_MARK = f"SHMEXEC_TEST_RUN={uuid.uuid4().hex}"
os.environ.update([_MARK.split("=")])

METHODS = (None, "fork", "forkserver", "spawn")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


_FAILED = pytest.StashKey[bool]()


def relatives():
    """(pid, state, command) of the processes that this one started, or that those did."""
    me, tracker = os.getpid(), getattr(resource_tracker._resource_tracker, "_pid", None)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in (me, tracker):
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
            command = Path(f"/proc/{entry}/cmdline").read_bytes()  # first: who ends has no environment
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if int(parent) == me or (_MARK.encode() in environment and not _is_tracker(command)):
            found.append((int(entry), state, command.replace(b"\0", b" ").decode(errors="replace")[:120]))
    return found


def _is_tracker(command):
    return b"resource_tracker" in command


def descriptors():
    """What this process has open, but for what lives as long as it does: the heap and the resource tracker's pipe."""
    shmexec.heap_info()  # which lets go of the pipes of forks whose children are dead
    heap = _core.heap_descriptors()
    tracker = getattr(resource_tracker._resource_tracker, "_fd", None)
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in (*heap, tracker):
            try:
                found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
            except FileNotFoundError:
                pass  # the listing's own
    return found


def _blocks():
    return shmexec.heap_info().blocks


def _collect_garbage():
    """Of what was made since the test began: the rest is frozen, or each collection would look at all of it."""
    for _ in range(3):  # a pool is in a cycle that its executor's finalizer holds
        gc.collect()


def _segments():
    """Names of POSIX heaps and ids of System V segments: what does not go by itself when everybody is killed.

    What the next heap would remove is removed. What is in use by living processes is no leak: if they are of this run
    they are left over themselves.
    """
    _core.sweep_segments()
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    found = {name for name in names if "shmexec" in name and _is_left(name)}
    table = Path("/proc/sysvipc/shm")
    rows = table.read_text().splitlines()[1:] if table.exists() else []
    return found | {f"System V {row.split()[1]}" for row in rows if _is_ours(*row.split()[:8])}


def _is_ours(key, _id, mode, _size, creator, _last, attached, user):
    """A removed segment that somebody has attached, or one that was never removed, made by a process of this run.

    If its creator is dead and somebody has it still, that one is looked for among the processes.
    """
    is_heap = int(key) >> 16 == 0x5358 or (int(mode, 8) & 0o1000 and int(attached))
    if not is_heap or int(user) != os.geteuid():
        return False
    return not _is_strangers(creator, of_the_dead=bool(int(attached)))


def _is_left(name):
    """Whether nobody has it open and locked, or a process of this run does that goes on."""
    try:
        file = os.open(f"/dev/shm/{name}", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return not _is_strangers(name.partition("-")[2].partition("-")[0], of_the_dead=True)
    else:
        return True
    finally:
        os.close(file)


def _is_strangers(pid, *, of_the_dead=False):
    try:
        return (
            pid.isdigit()
            and _MARK.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            and int(pid) != os.getpid()
        )
    except OSError:
        return of_the_dead


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After the test: no process, thread, descriptor, block or kernel segment that was not there before."""
    if "demo" in Path(str(request.node.fspath)).parts:
        yield
        return
    shmexec.empty(1)  # the heap is there
    gc.freeze()
    blocks, opened = _blocks(), descriptors()
    threads = set(threading.enumerate())
    segments = _segments()
    yield
    request.node.funcargs.clear()  # pytest holds them until later
    if request.node.stash.get(_FAILED, False):
        return
    _collect_garbage()
    left = {
        "processes": relatives(),
        "threads": [thread for thread in threading.enumerate() if thread not in threads],
        "descriptors": {n: name for n, name in descriptors().items() if opened.get(n) != name},
        "blocks": max(0, _blocks() - blocks),
        "segments": sorted((_segments() - segments) & _segments()),  # others come and go while we look
        "broken invariant": _core.check_heap(True),
    }
    assert not any(left.values()), f"left over: { {what: which for what, which in left.items() if which} }"


@pytest.fixture
def gate(tmp_path):
    """Makes named gates; they all stand open when the test is over."""
    made = []

    def make(name):
        made.append(sequencer.Gate(tmp_path / f"gate-{name}"))
        return made[-1]

    make.open_all = lambda: [one.open(1000) for one in made]
    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_executor(gate):
    """Makes executors, which are shut down after the test, whatever state it left them in."""
    made = []

    def make(max_workers=2, mp_context=None, *args, **options):
        if isinstance(mp_context, str):
            mp_context = multiprocessing.get_context(mp_context)
        made.append(shmexec.SharedExecutor(max_workers, mp_context, *args, **options))
        return made[-1]

    yield make
    gate.open_all()
    for one in made:
        one.shutdown(wait=True)
    made.clear()


@pytest.fixture
def executor(make_executor):
    """A pool of two workers."""
    return make_executor(2)


@pytest.fixture(params=METHODS, ids=lambda method: method or "default")
def method(request):
    """How workers are started."""
    return request.param


@pytest.fixture(name="relatives")
def relatives_fixture():
    """The processes that are there because of this test, as a function."""
    return relatives


@pytest.fixture
def script(tmp_path):
    """Runs a program in an interpreter of its own; what it printed."""
    return sequencer.Script(tmp_path)


@pytest.fixture
def beside_tests(tmp_path):
    """A folder with these tests and nothing else: `python -m tests.x` there uses the installed package."""
    (tmp_path / "tests").symlink_to(_HERE)
    return tmp_path


@pytest.fixture
def run_tests_of_others(beside_tests):
    """Runs `python -m tests.MODULE --short` with the package that is imported here; it has to succeed."""

    def run(module):
        paths = [*filter(None, sys.path), str(_HERE.parent)]
        done = subprocess.run(
            [sys.executable, "-m", f"tests.{module}", "--short"],
            cwd=beside_tests,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def lonely(make_executor):
    """A pool of one worker, which is up and knows the function."""
    import tasks

    executor = make_executor(1)
    executor.submit(tasks.give, 0).result()
    executor.submit(tasks.give, 0).result()
    return executor
