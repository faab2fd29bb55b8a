"""The C of the heap alone: programs beside this file, compiled with native/*.c, plain and under sanitizers.

Each program takes a seed and a number of seconds. Short here; longer by hand:

    SHMEXEC_NATIVE_SECONDS=600 SHMEXEC_NATIVE_SEED=7 pytest tests/native

The fuzzers run for a minute in all; SHMEXEC_FUZZ_SECONDS of each of the four, and SHMEXEC_FUZZ_SEED, change that.
"""

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import killed_at_step
import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parent.parent / "native"
COMPILER = shlex.split(os.environ.get("CC", "cc"))
SECONDS = os.environ.get("SHMEXEC_NATIVE_SECONDS", "1")
SEED = os.environ.get("SHMEXEC_NATIVE_SEED", "1")
FUZZ_SECONDS = os.environ.get("SHMEXEC_FUZZ_SECONDS", "15")  # of each of four: a minute in all
FUZZ_SEED = os.environ.get("SHMEXEC_FUZZ_SEED", SEED)
FLAGS = ["-std=gnu11", "-g", "-fno-strict-aliasing", "-DSX_TEST_STEPS", "-pthread", f"-I{NATIVE}", f"-I{HERE}"]
VARIANTS = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address"],
    "undefined": ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-O1", "-fsanitize=thread"],
}
OPTIONS = {  # processes end by _exit and by SIGKILL: what they leave is the heap's matter, not the leak checker's
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0",
}

pytestmark = [
    pytest.mark.skipif(platform.system() != "Linux", reason="the segment is a memfd so far"),
    pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="no C compiler"),
    pytest.mark.skipif(not (NATIVE / "heap.c").exists(), reason="needs a checkout: native/ is not beside the tests"),
    pytest.mark.timeout(max(float(SECONDS), float(FUZZ_SECONDS)) + 100),
]


def sources():
    """The C that needs no Python."""
    return sorted(str(path) for path in NATIVE.glob("*.c") if "Python.h" not in path.read_text())


class Compiler:
    """Compiles native/*.c once for each set of flags, and each program once for each variant."""

    def __init__(self, folder):
        self.folder = folder
        self.libraries = {}
        self.programs = {}

    def run(self, arguments):
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=self.folder)
        return done.returncode, done.stdout + done.stderr

    def compile(self, variant, flags, *arguments):
        return self.run([*COMPILER, *FLAGS, *VARIANTS[variant], *flags, *arguments])

    def library(self, variant, flags):
        key = (variant, *flags)
        if key not in self.libraries:
            folder = self.folder / f"{variant}-{len(self.libraries)}"
            folder.mkdir()
            code, output = 0, ""
            objects = []
            for source in sources():
                objects.append(str(folder / (Path(source).stem + ".o")))
                code, output = self.compile(variant, flags, "-c", source, "-o", objects[-1])
                assert code == 0, output
            self.libraries[key] = objects
        return self.libraries[key]

    def supports(self, variant):
        source, program = self.folder / "empty.c", self.folder / f"empty-{variant}"
        source.write_text("int main(void) { return 0; }\n")
        code, _ = self.compile(variant, (), str(source), "-o", str(program))
        return code == 0 and self.run([str(program)])[0] == 0

    def program(self, name, variant="plain", flags=()):
        key = (name, variant, *flags)
        if key not in self.programs:
            if not self.supports(variant):
                pytest.skip(f"no {variant} sanitizer here")
            program = self.folder / "-".join([name, variant, str(len(self.programs))])
            objects = self.library(variant, flags)
            code, output = self.compile(variant, flags, str(HERE / f"{name}.c"), *objects, "-o", str(program))
            assert code == 0, output
            self.programs[key] = str(program)
        return self.programs[key]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    return Compiler(tmp_path_factory.mktemp("native"))


def run(program, seconds=SECONDS, *arguments, seed=SEED):
    environment = {**os.environ, **OPTIONS}
    limit = float(seconds) + 90
    command = [program, seed, seconds, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
    return done.returncode, done.stdout + done.stderr


def holds(compiler, name, variant, seconds=SECONDS):
    code, output = run(compiler.program(name, variant), seconds)
    assert code == 0, output[-8000:]


processes = pytest.mark.parametrize("variant", ["plain", "address", "undefined"])
threads = pytest.mark.parametrize("variant", ["plain", "address", "undefined", "thread"])


@processes
def test_no_kill_of_a_process_frees_too_early_or_leaks(compiler, variant):
    holds(compiler, "stress", variant)


def test_the_stress_finds_wrong_data_if_holding_does_not_move_the_epoch(compiler):
    code, output = run(compiler.program("stress", flags=("-DSX_FAULT_NO_EPOCH",)), "20")
    assert code == 1, output
    assert "a block that is held is not there" in output or "wrong data" in output


@processes
def test_whoever_is_killed_at_whichever_step_leaves_nothing_behind(compiler, variant):
    holds(compiler, "kill_points", variant, str(2 * float(SECONDS)))


@pytest.mark.parametrize("name", sorted(set(killed_at_step.ELSEWHERE.values())))
def test_each_step_that_no_pool_comes_to_is_come_to_here(compiler, name, tmp_path, monkeypatch):
    sites = tmp_path / "sites"
    monkeypatch.setenv("SHMEXEC_TEST_SITES", str(sites))
    holds(compiler, name, "plain")
    functions = {function for function, program in killed_at_step.ELSEWHERE.items() if program == name}
    wanted = {site for site in killed_at_step.all_sites() if killed_at_step.name_of(site) in functions}
    assert functions == {killed_at_step.name_of(site) for site in wanted}
    assert not wanted - killed_at_step.visited(sites)


@processes
def test_two_members_that_interrupt_each_other_at_any_step_agree(compiler, variant):
    holds(compiler, "schedules", variant)


def test_the_first_schedule_fails_if_holding_does_not_move_the_epoch(compiler):
    code, output = run(compiler.program("schedules", flags=("-DSX_FAULT_NO_EPOCH",)))
    assert code == 1, output
    assert "F1: freed under a holder" in output


@processes
def test_an_answer_keeps_its_blocks_until_it_is_read_and_no_longer(compiler, variant):
    holds(compiler, "messages", variant)


@processes
def test_exactly_one_reaps_and_only_what_is_certainly_dead(compiler, variant):
    holds(compiler, "reapers", variant)


@processes
def test_a_ticket_keeps_its_block_until_it_is_first_read(compiler, variant):
    holds(compiler, "tickets", variant)


@threads
def test_a_fork_shares_what_was_held_and_a_failed_or_raw_fork_nothing(compiler, variant):
    holds(compiler, "forks", variant)


@threads
def test_a_spin_is_short_and_learns_when_it_is_in_vain(compiler, variant):
    holds(compiler, "spins", variant)


@processes
def test_a_sleeper_is_woken_on_the_core_where_it_should_be(compiler, variant):
    holds(compiler, "places", variant)


@threads
def test_a_report_is_read_whole_or_not_at_all(compiler, variant):
    holds(compiler, "reports", variant, "0.3")


@threads
def test_no_answer_is_slept_over_whoever_collects(compiler, variant):
    holds(compiler, "handovers", variant)


@threads
def test_threads_hold_release_and_find_the_same_blocks(compiler, variant):
    holds(compiler, "threads", variant)


@processes
def test_adopted_blocks_stay_and_trimmed_pages_are_nobodys(compiler, variant):
    holds(compiler, "adoption", variant)


@processes
def test_sizes_zeros_limits_and_addresses_are_as_promised(compiler, variant):
    holds(compiler, "sizes", variant, "1")


@pytest.mark.parametrize("variant", ["address", "undefined"])
@pytest.mark.parametrize("reader", ["fuzz_ring", "fuzz_heap"])
def test_whatever_others_have_written_is_read_within_the_heap(compiler, reader, variant):
    corpus = str(HERE / "corpus" / f"{reader}.hex")
    code, output = run(compiler.program(reader, variant), FUZZ_SECONDS, corpus, seed=FUZZ_SEED)
    assert code == 0, output[-8000:]
    assert int(output.split()[0]) > 10, "the corpus is empty"


@processes
def test_free_runs_agree_with_a_map_of_granules(compiler, variant):
    holds(compiler, "runs_fuzz", variant, "1")


@processes
def test_the_table_of_counts_agrees_with_an_array(compiler, variant):
    holds(compiler, "table_fuzz", variant, "1")


def test_an_allocation_costs_the_same_with_ten_and_with_100000_blocks(compiler):
    holds(compiler, "cost", "plain")
