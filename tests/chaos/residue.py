"""What a process tree has left behind: processes, and memory of the kernel's.

A memfd and a removed System V segment live as long as some process has them: if no process is left, nothing is. The
other System V segments, and the files in /dev/shm, stay until somebody removes them, and have names; what has none
shows in the account of `tests.kernel_memory`.
"""

import os
import time
from pathlib import Path


def processes(mark):
    """Pids of those that have this string in their environment: they descend from whoever was started with it."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if mark.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
            except OSError:
                pass
    return found


def wait_gone(mark, seconds):
    """Those that are still there after so many seconds."""
    until = time.monotonic() + seconds
    while (found := processes(mark)) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def memory(creator):
    """{name: bytes} of segments of the process with this pid, which is dead."""
    found = {}
    for path in Path("/dev/shm").glob(f"shmexec-{creator}-*"):
        found[str(path)] = path.stat().st_blocks * 512
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    except OSError:
        return found
    head = lines[0].split()
    for line in lines[1:]:
        values = dict(zip(head, line.split(), strict=False))
        if int(values["cpid"]) == creator:
            found[f"shmid {values['shmid']}"] = int(values["rss"])
    return found
