"""Interrupted, killed, resumed: nothing is done twice, and what lies among the results is whole."""

import os
import pty
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import sequencer

from shmexec.batch.jobs import Jobs, Life, Report
from shmexec.batch.record import Entry, entries_of, is_done
from shmexec.batch.sources import Source

STEPS = "steps.py:"


def test_resuming_does_what_is_new_has_changed_or_has_failed_and_nothing_else(folder, run):
    folder.make(0, 1, 4)
    assert run(STEPS + "trouble").status == 1  # 1 raises, 4 fails at first
    assert folder.log() == [0, 1, 4]
    folder.make(5)
    np.save(folder.path / "scans" / "0.npy", np.zeros((3, 3)))
    ran = run(STEPS + "trouble", "--resume", "--json")
    assert folder.log() == [0, 0, 1, 1, 4, 4, 5]
    assert (ran.json["done"], ran.json["done_before"], len(ran.json["failed"])) == (3, 0, 1)
    assert np.load("results/0.npy").shape == (3, 3)
    os.unlink("scans/1.npy")
    assert run(STEPS + "trouble", "--resume").status == 0
    os.unlink("results/5.npy")
    assert run(STEPS + "trouble", "--resume").status == 0
    assert folder.log() == [0, 0, 1, 1, 4, 4, 5, 5]


@pytest.mark.parametrize(("when", "begun"), [("before", [7, 7]), ("after", [7])])
def test_a_worker_killed_at_the_rename_leaves_one_whole_result(folder, run, when, begun):
    folder.make(7)
    ran = run(STEPS + "killed_at_rename", "--retries", "1", "--set", f"when={when}")
    assert ran.status == 0, ran
    assert folder.log() == begun
    assert np.load("results/7.npy").shape == (2, 3)
    assert os.listdir("results/.shmexec-map/tmp") == []


def start(folder, *options, **how):
    command = [sys.executable, "-m", "shmexec", "map", STEPS + "at_gate", "scans/*.npy", "--out", "results"]
    return subprocess.Popen(
        [*command, "--workers", "2", *options],
        cwd=folder.path,
        env=sequencer.environment(),
        text=True,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
        **how,
    )


def test_after_sigkill_a_run_that_is_resumed_waits_for_the_workers_and_does_the_rest(folder, run, gate, relatives):
    folder.make(0, 1, 2, 3, 4, 5)
    say, wait = gate("say"), gate("wait")
    with start(folder) as program:
        say.wait_open()
        say.wait_open()  # 0 and 1 are done, 2 and 3 have begun
        program.kill()
    # from here on its workers end what they are at, and begin nothing that they would end before SIGTERM comes
    (folder.path / "orphans").write_text(" ".join(str(pid) for pid, *_ in relatives()))
    wait.open(1000)
    ran = run(STEPS + "at_gate", "--resume", "--json")
    assert ran.status == 0, ran
    assert ran.json["done"] + ran.json["done_before"] == 6
    # what was at work as the parent died is begun again, unless it came to its end; what was done is not
    assert [case for case in folder.log() if case in (0, 1, 4, 5)] == [0, 1, 4, 5]
    assert sorted(one for one in os.listdir("results") if one[0] != ".") == [f"{i}.npy" for i in range(6)]
    assert os.listdir("results/.shmexec-map/tmp") == []
    sequencer.wait_until(lambda: not relatives())


def test_ctrl_c_ends_it_at_once_with_a_summary_and_it_can_be_resumed(folder, run, gate, relatives):
    folder.make(0, 1, 2, 3, 4, 5)
    say, wait = gate("say"), gate("wait")
    ours, theirs = pty.openpty()
    try:
        with start(folder, stderr=theirs, start_new_session=True) as program:
            say.wait_open()
            say.wait_open()
            drawn = b""
            while b"2/6 [##" not in drawn:
                drawn += os.read(ours, 10000)
            sequencer.wait_until(lambda: sequencer.state_of(program.pid) == "S")
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
            out, _ = program.communicate()
        os.write(theirs, b"|")  # so that there is something to read
        drawn += os.read(ours, 10000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert program.returncode == 130
    assert out.startswith("2 files done, 0 failed, 4 left; ")
    assert "stopped: interrupted\nthe same command with --resume does what is missing\n" in out
    assert b"Traceback" not in drawn
    assert not relatives()
    assert os.listdir("results/.shmexec-map/tmp") == []
    wait.open(1000)
    assert run(STEPS + "at_gate", "--resume").status == 0
    assert folder.log() == [0, 1, 2, 3, 4, 5]


# ---- without processes -----------------------------------------------------------------------------


def source(name, size=5, changed=6):
    return Source(f"/in/{name}", name, size, changed)


def test_what_the_journal_says_is_believed_only_of_the_same_file_and_while_its_result_is_there():
    line = '{"key": "a", "path": "../in/a", "size": 5, "changed": 6, "outputs": ["a.npy"]}'
    for lines, same in [
        ([line], True),
        ([line[:30], "", line], True),  # cut off by a kill, then another
        ([line, "no entry", "[]", '{"key": "b"}'], True),
        ([line, '{"anew": "run"}'], False),
        ([line, '{"anew": "run"}', line], True),
        ([line.replace("5", "4")], False),
        ([line, line.replace("6", "7")], False),  # the last entry counts
        ([line.replace("../in", "../on")], False),
        ([], False),
    ]:
        entries: dict[str, Entry] = {}
        entries_of(lines, entries)
        assert is_done(entries.get("a"), source("a"), "../in/a", lambda path: path == "a.npy") is same, lines
        assert not is_done(entries.get("a"), source("a"), "../in/a", lambda path: False)


def test_jobs_whatever_happens_are_counted_once_and_no_more_run_than_there_is_room_for():
    for seed in range(200):
        rng = random.Random(seed)
        retries, room = rng.randrange(3), rng.randrange(1, 4)
        jobs = Jobs(map(source, "abcdefgh"), retries, room)
        running = []
        while True:
            while (job := jobs.take()) is not None:
                running.append(job)
            assert len(running) == jobs.running <= room
            if not running:
                break
            job = running.pop(rng.randrange(len(running)))
            match rng.randrange(12):
                case 0 | 1 | 2:
                    jobs.end(job, Report(error="no"))
                case 3:
                    jobs.end(job, Report(error="disk full", ends_all=rng.random() < 0.3))
                case 4 if jobs.stopped:
                    jobs.give_back(job)
                case _:
                    jobs.end(job, Report(("x",)))
        lives = [job.life for job in jobs.all]
        assert set(lives) <= {Life.DONE, Life.FAILED, Life.LEFT}
        assert (lives.count(Life.DONE), lives.count(Life.FAILED)) == (jobs.done, jobs.failed)
        assert all(job.attempts <= retries + 1 for job in jobs.all)
        assert all(job.attempts == retries + 1 for job in jobs.with_life(Life.FAILED)) or jobs.stopped
        assert (Life.LEFT in lives) <= bool(jobs.stopped)
