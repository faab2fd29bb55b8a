"""A peer's process tree: asked, timed out, and ended with whatever it has started."""

import os
import sys
import time

import pytest
import sequencer

from shmexec.bench.children import Child, _began

# answers with the number of a daemon, in a session of its own, that does not end by itself
FORGETFUL = """
import json, subprocess, sys
none = subprocess.DEVNULL
daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=none, stdout=none)
for line in sys.stdin:
    asked = json.loads(line)
    if asked == "hang":
        import time
        time.sleep(1000)
    if asked == "leave":
        sys.exit(7)
    print(json.dumps({"seconds": daemon.pid}), flush=True)
daemon.returncode = 0
"""


@pytest.fixture
def child():
    child = Child("threads", 1)
    child._command = [sys.executable, "-c", FORGETFUL]
    yield child
    child.close()
    child.end()


def test_a_daemon_that_is_left_is_ended(child):
    assert child.is_fresh
    daemon = child.ask("who")["seconds"]
    assert not child.is_fresh
    assert _began(daemon)
    child.close()
    assert child.end(time.monotonic()) >= 1
    sequencer.wait_until(lambda: not _began(daemon))


def test_a_child_that_does_not_answer_is_ended_with_its_daemon(child):
    daemon = child.ask("who")["seconds"]
    assert child.ask("hang", 0.01) == {"error": "ended, there was no answer within 0.0 s", "ended": True}
    sequencer.wait_until(lambda: not _began(daemon))  # it was killed, and is somebody else's to bury


def test_a_child_that_leaves_is_an_error_with_its_status(child):
    daemon = child.ask("who")["seconds"]
    assert child.ask("leave") == {"error": "its process ended with status 7", "ended": True}
    os.kill(daemon, 9)
