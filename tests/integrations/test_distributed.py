"""A Dask cluster as an executor. One program, one cluster: see `cluster_program`; each test looks at a part of it."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sequencer

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program has found."""
    command = [sys.executable, HERE / "cluster_program.py"]
    folder = tmp_path_factory.mktemp("cluster")
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=sequencer.environment(), timeout=100)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_script_of_the_page_prints_the_same_on_one_machine_and_on_a_cluster(found):
    here, there = found["same_script"]
    assert here.count("\n") == 7
    assert here == there


def test_a_big_input_is_sent_once_and_results_stay_and_go_on_by_name(found):
    part = found["by_name"]
    assert part["right"]
    assert part["sent"] == 1
    assert part["fetched"] == 0
    assert part["by name"]
    assert part["arrays copied by pools"] <= 8  # results that moved to another machine


def test_a_call_sees_its_inputs_as_they_were_submitted_and_nobody_elses_writes(found):
    assert found["own"] == {"written": [True] * 3, "nested": True, "changed": 1e6}


def test_submit_does_not_wait_for_inputs_nor_do_calls_for_those_of_others(found):
    assert found["not_waiting"] == {"small": 3, "done": False, "cancelled": True, "right": True}


def test_what_a_call_reports_is_seen_by_its_future_and_on_the_bar(found):
    assert found["reports"] == {"last": "nearly there", "values": [None] * 3, "most": 3}


def test_a_running_call_is_ended_by_the_executors_cancel_and_goes_on_after_the_futures(found):
    part = found["cancels"]
    assert part["left alone"] is part["ended"] is True
    assert all(one.startswith("CancelledError") for one in part["results"])
    assert part["no future"] == "TypeError: future must be one that this executor's submit returned, not Future"
    assert part["of another"] == "ValueError: future is of another executor: cancel it there"
    assert part["goes on"] == [0, 1, 2, 3]


def test_a_call_that_comes_after_it_was_to_be_ended_is_ended_too():
    pytest.importorskip("distributed")
    from shmexec.integrations.cluster_machine import _Calls

    class Pool:
        def cancel(self, future):
            ended.append(future)

    ended = []
    calls = _Calls()
    calls.end("late")
    calls.begun("late", Pool(), "one")
    calls.begun("other", Pool(), "two")
    assert ended == ["one"]
    calls.over("other")
    calls.end("other")
    assert ended == ["one"]


def test_map_has_what_the_map_of_a_pool_has(found):
    part = found["maps"]
    assert part["plain"] == [32, 729, 16384]
    assert part["chunks"] == list("0123456")
    assert part["progress"] == [7, 7]
    assert part["any order"] == [1, 2, 3, 4]
    assert part["error"] == "ZeroDivisionError: division by zero"


def test_a_call_that_hangs_or_dies_fails_alone(found):
    part = found["failures"]
    assert part["timeout"].startswith("TaskTimeout")
    assert part["death"].startswith("WorkerDied")
    assert "exit code 3" in part["death"]
    assert part["through"].startswith("ZeroDivisionError")
    assert part["not callable"] == "TypeError: fn must be a callable, not int"
    assert part["client"] == "TypeError: client must be a distributed.Client, not int"
    assert part["goes on"] == 3


def test_the_plugin_serves_annotated_tasks_in_daemonic_workers_too(found):
    assert found["plugin"] == {"daemonic": [True, True], "in a process of ours": True}


def test_a_lost_machine_costs_a_recomputation(found):
    assert found["lost"] == {"totals": [True] * 6, "first": [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]}


def test_a_call_whose_machine_is_lost_while_it_runs_runs_on_another(found):
    assert found["lost_while_it_runs"] is True


@pytest.mark.parametrize("which", ["closed", "closed_beside_another"])
def test_a_closed_client_is_an_error_that_says_what_to_do(found, which):
    part = found[which]
    for told in [*part["running"], part["submit"], part["new"]]:
        assert told.startswith("RuntimeError: the Dask client is clos")
        assert "make a new Client" in told
    assert "after shutdown" in part["after shutdown"]


class Machines:
    """A client of machines that have something else installed."""

    def __init__(self, found, *, on_worker=True):
        self.found, self.on_worker = found, on_worker

    def run(self, function, *args, on_error):
        return {"tcp://there:1": self.found(function, *args) if self.on_worker else function(*args)}

    def run_on_scheduler(self, function, *args):
        found = function(*args) if self.on_worker else self.found(function, *args)
        if isinstance(found, Exception):
            raise found
        return found


def of_package(found, name="shmexec"):
    return lambda function, *args: found if args == (name,) else function(*args)


def test_a_machine_without_the_package_or_with_another_version_is_named_with_the_command_to_type():
    pytest.importorskip("distributed")
    from shmexec.integrations.distributed import _check_machines

    own = importlib.metadata.version("shmexec")
    missing = of_package(importlib.metadata.PackageNotFoundError("shmexec"))
    with pytest.raises(RuntimeError, match=f"tcp://there:1 has no shmexec: there, pip install 'shmexec=={own}'"):
        _check_machines(Machines(missing))
    with pytest.raises(RuntimeError, match=f"scheduler's machine has no shmexec: there, pip install 'shmexec=={own}'"):
        _check_machines(Machines(missing, on_worker=False))
    with pytest.raises(RuntimeError, match=r"tcp://there:1 has shmexec 0\.0\.1, and here it is"):
        _check_machines(Machines(of_package("0.0.1")))
    with pytest.raises(
        RuntimeError, match=r"scheduler's machine has distributed 2023\.1, .* pip install 'distributed=="
    ):
        _check_machines(Machines(of_package("2023.1", "distributed"), on_worker=False))
    with pytest.raises(RuntimeError, match="tcp://there:1 does not answer"):
        _check_machines(Machines(of_package(OSError("gone"))))
    with pytest.raises(RuntimeError, match=r"tcp://there:1 has Python 3\.1, and here"):
        _check_machines(Machines(lambda function, *args: function(*args) if args else ("3", "1", "4")))


def test_a_machine_that_comes_later_with_another_version_says_so_in_its_log():
    pytest.importorskip("distributed")
    from shmexec.integrations.distributed import SharedExecutorPlugin

    class Worker:
        address = "tcp://there:1"

    plugin = SharedExecutorPlugin()
    plugin._version = "0.0.1"
    with pytest.raises(RuntimeError, match=r"tcp://there:1 has shmexec .*here by pip install 'shmexec==0\.0\.1'"):
        plugin.setup(Worker())


def test_without_distributed_the_command_to_type_is_named(script):
    ran = script("import sys; sys.modules['distributed'] = None; import shmexec.integrations.distributed", check=False)
    assert "pip install 'shmexec[distributed]'" in ran.stderr
