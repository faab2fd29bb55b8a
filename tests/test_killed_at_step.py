"""Every store to shared memory, in a worker's life and in its parent's, is a place where a test has died.

Here a sample of them, another for each `SHMEXEC_STEPS_SEED`; `tests/killed_at_step.py` goes through all.
"""

import os
import platform
import shutil
import sysconfig

import killed_at_step
import pytest

SEED = os.environ.get("SHMEXEC_STEPS_SEED", "1")

pytestmark = [
    pytest.mark.skipif(platform.system() != "Linux", reason="the extension is for Linux so far"),
    pytest.mark.skipif(not shutil.which(sysconfig.get_config_var("CC").split()[0]), reason="no C compiler"),
    pytest.mark.skipif(not (killed_at_step.HERE.parent / "native").is_dir(), reason="needs a checkout"),
    pytest.mark.timeout(300),  # it compiles the extension
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    killed_at_step.build(folder)
    return folder


@pytest.mark.parametrize(
    ("who", "method", "stride"),
    [("worker", "default", 41), ("worker", "fork", 101), ("parent", "fork", 41), ("parent", "default", 151)],
)
def test_whoever_dies_before_whichever_store_costs_one_call_and_leaves_nothing(built, who, method, stride):
    options = ["--method", method, "--stride", stride, "--seed", SEED]
    ran = killed_at_step.run(built, who, *options, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    deaths = int(ran.stdout.partition(":")[2].split()[0])
    assert deaths >= 3


def test_the_script_comes_to_each_step_but_those_that_a_native_program_comes_to(built, tmp_path, monkeypatch):
    sites = tmp_path / "sites"
    monkeypatch.setenv("SHMEXEC_TEST_SITES", str(sites))
    for who, at in ("worker", 1), ("parent", 600):  # a parent that dies in the middle: its workers see that
        options = ["--method", "fork", "--stride", at, "--seed", at - 1, "--seconds", "0.01"]
        ran = killed_at_step.run(built, who, *options, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    missed = killed_at_step.all_sites() - killed_at_step.visited(sites)
    missed = {site for site in missed if killed_at_step.name_of(site) not in killed_at_step.ELSEWHERE}
    assert not missed
