"""What has been done: a folder `.shmexec-map` among the results, which outlives whoever is killed.

Purpose: a batch that was interrupted, or killed anywhere, goes on and does nothing twice.
Guarantees
    R1  a result is done <=> the journal's last entry of it is of this source as it is now, and all its files are there
    R2  a file among the results is whole: it was written under another name, is on the disk, and was renamed
    R3  nobody of an earlier run writes any more when a run begins; two runs at a time there are not
Assumptions: a file system with flock, atomic rename, and appending writes that do not mix, as local ones are.

    job.json        function, settings, format, and the number of the run
    journal.jsonl   one entry a result, written by the worker just before it renames
    lock            held by the process that runs the batch
    busy            shared by the workers while they work on a file; a new run takes it once for itself alone
    tmp/            what is being written

The order in the worker: write, fsync; remove what an earlier run has left of this result; entry; rename.

    killed before the entry                     nothing has happened
    killed between the entry and the rename     there is no file: it is not done (R1), and is done again
    killed after the rename, before the answer  it is done: who hears of the death looks here first

Rejected: the entry after the rename, by the worker or the parent: killed in between, a finished file is done twice.
An entry needs no fsync: the kernel outlives us, and after a loss of power an entry that is lost costs work, no more.

An entry begins with a new line, too: one that was cut off by a kill spoils no other.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shmexec.batch.errors import NotStarted, shown
from shmexec.batch.sources import Source

FOLDER = ".shmexec-map"


@dataclass(frozen=True, slots=True)
class Entry:
    """Of one result: its source as it was then, from the results' folder on, and the files."""

    path: str
    size: int
    changed: int
    outputs: tuple[str, ...]
    counts: bool = True  # False: of a run that was to be done anew


def entries_of(lines: Sequence[str], entries: dict[str, Entry]) -> None:
    """Put what the lines of a journal say into `entries`. What is no entry is passed over."""
    for line in lines:
        try:
            said = json.loads(line)
            if "anew" in said:
                for key, entry in entries.items():
                    entries[key] = Entry(entry.path, entry.size, entry.changed, entry.outputs, counts=False)
            else:
                entry = Entry(said["path"], int(said["size"]), int(said["changed"]), tuple(said["outputs"]))
                entries[said["key"]] = entry
        except (ValueError, KeyError, TypeError):
            continue


def is_done(entry: Entry | None, source: Source, path: str, exists: Callable[[str], bool]) -> bool:
    """R1; `path` is the source's, from the results' folder on."""
    if entry is None or not entry.counts:
        return False
    same = (entry.path, entry.size, entry.changed) == (path, source.size, source.changed)
    return same and all(exists(output) for output in entry.outputs)


class Record:
    """Of one results' folder. Made by looking; nothing is written before `begin`."""

    def __init__(self, out: str) -> None:
        self.out = os.path.abspath(out)
        self.run = ""
        self.job: Mapping[str, Any] | None = None
        self._folder = os.path.join(self.out, FOLDER)
        self._entries: dict[str, Entry] = {}
        self._read = 0
        self._lock: int | None = None
        self.look()

    def look(self) -> None:
        """Read what is new."""
        try:
            with open(os.path.join(self._folder, "job.json")) as file:
                self.job = json.load(file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise NotStarted(f"{shown(self._folder)} cannot be read ({error}): remove it, or take another --out")
        try:
            with open(os.path.join(self._folder, "journal.jsonl"), "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        end = data.rfind(b"\n") + 1
        self._read += end
        entries_of(data[:end].decode(errors="replace").split("\n"), self._entries)

    def is_done(self, source: Source) -> bool:
        return is_done(self._entries.get(source.key), source, self._from_out(source.path), self._exists)

    def previous(self, source: Source) -> tuple[str, ...]:
        """The files that were written for this source before."""
        entry = self._entries.get(source.key)
        return entry.outputs if entry is not None and entry.path == self._from_out(source.path) else ()

    def _from_out(self, path: str) -> str:
        return os.path.relpath(path, self.out)

    def _exists(self, output: str) -> bool:
        return os.path.lexists(os.path.join(self.out, output))

    def begin(self, job: Mapping[str, Any], *, anew: bool, waits: Callable[[], object]) -> None:
        """From now on this process alone runs a batch into the folder; `waits` is called if an earlier run's workers
        have still to end.
        """
        try:
            os.makedirs(os.path.join(self._folder, "tmp"), exist_ok=True)
            self._lock = os.open(os.path.join(self._folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotStarted(f"another shmexec map writes into {shown(self.out)}")
            self.run = uuid.uuid4().hex
            with self._alone(waits):
                self._write_job({**job, "run": self.run})
                self.look()  # what those have written in the meantime
                self._clear()
                if anew:
                    self._append({"anew": self.run})
                    self.look()
        except OSError as error:
            self._let_go()
            raise NotStarted(f"{shown(self.out)} cannot be written: {error.strerror or error}")
        except BaseException:
            self._let_go()
            raise

    @contextmanager
    def _alone(self, waits: Callable[[], object]) -> Iterator[None]:
        descriptor = os.open(os.path.join(self._folder, "busy"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write_job(self, job: Mapping[str, Any]) -> None:
        path = os.path.join(self._folder, "job.json")
        with open(f"{path}.new", "w") as file:
            json.dump(job, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)

    def _append(self, said: object) -> None:
        append(self.out, said)

    def _clear(self) -> None:
        """What was being written is of no use."""
        for name in os.listdir(os.path.join(self._folder, "tmp")):
            path = os.path.join(self._folder, "tmp", name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def close(self) -> None:
        """The batch is over, and no worker of it is left."""
        if self._lock is None:
            return
        try:
            self._clear()
            folder = os.open(self.out, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            pass  # the next run clears up
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


# ---- in the worker ---------------------------------------------------------------------------------


@contextmanager
def working(out: str, run: str) -> Iterator[str]:
    """While this run works on a file; gives the folder for what is being written.

    OSError if the run is not the present one any more: its parent is dead, and another has begun.
    """
    folder = os.path.join(out, FOLDER)
    descriptor = os.open(os.path.join(folder, "busy"), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with open(os.path.join(folder, "job.json")) as file:
            if json.load(file)["run"] != run:
                raise OSError("another shmexec map has taken over")
        yield os.path.join(folder, "tmp")
    finally:
        os.close(descriptor)


def append(out: str, said: object) -> None:
    """One entry of the journal, by a single write."""
    descriptor = os.open(
        os.path.join(out, FOLDER, "journal.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666
    )
    try:
        os.write(descriptor, f"\n{json.dumps(said)}\n".encode())
    finally:
        os.close(descriptor)
