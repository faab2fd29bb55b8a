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
    [("worker", "default", 11), ("worker", "fork", 29), ("parent", "fork", 11), ("parent", "default", 41)],
)
def test_whoever_dies_before_whichever_store_costs_one_call_and_leaves_nothing(built, who, method, stride):
    options = ["--method", method, "--stride", stride, "--seed", SEED]
    ran = killed_at_step.run(built, who, *options, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    deaths = int(ran.stdout.partition(":")[2].split()[0])
    assert deaths >= 3
