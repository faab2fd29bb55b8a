/* reapers.c - exactly one reaps, whoever else tries, is stopped or dies over it; and only what is certainly dead. */
#include "harness.h"
#include <sys/resource.h>

enum { EXTENTS = 40, REAPERS = 3 };

static sx_heap_t heap;
static uint32_t kept_free;

/* A process that has blocks of its own and holds `also`, and is dead; its slot. */
static uint32_t make_dead(const sx_name_t *also, int guarded) {
    uint32_t slot = sx_slot_reserve(&heap, guarded);
    CHECK(slot);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        join(&mine, &heap, slot);
        for (int i = 0; i < 5; i++)
            alloc(&mine, (uint64_t[]){10, 3000, 1 << 20, SX_EXTENT_BYTES / 2 + 1, 500}[i]);
        if (also)
            CHECK(sx_heap_hold(&mine, *also) == 0);
        raise(SIGKILL);
    }
    expect_killed_or_clean(pid);
    return slot;
}

static void exactly_one_of_many_reaps(void) {
    typedef struct {
        _Atomic uint64_t go, reaped[SX_SLOTS], round_done[REAPERS];
        _Atomic uint32_t slot;
    } race_t;
    race_t *race = shared(sizeof *race);
    pid_t pids[REAPERS];
    sx_name_t also = alloc(&heap, 100);
    for (int r = 0; r < REAPERS; r++)
        if (!(pids[r] = spawn())) {
            sx_heap_t mine;
            join(&mine, &heap, 0);
            start_random((uint64_t)r + 1);
            on_step = yield_at_steps;
            for (uint64_t round = 1;; round++) {
                while (atomic_load(&race->go) < round)
                    sched_yield();
                uint32_t slot = atomic_load(&race->slot);
                atomic_fetch_add(&race->reaped[slot], (uint64_t)sx_slot_reap(&mine, slot));
                if (rnd(2))
                    sx_slot_reap_dead(&mine);
                atomic_store(&race->round_done[r], round);
            }
        }
    uint64_t rounds = 0;
    double until = began + seconds / 4;
    WAIT_UNTIL(members(&heap) == 1 + REAPERS); /* else one of them may take the slot that was just reaped */
    do {
        uint32_t slot = make_dead(&also, 0);
        atomic_store(&race->slot, slot);
        atomic_store(&race->reaped[slot], 0);
        atomic_store(&race->go, ++rounds);
        uint64_t by_me = (uint64_t)sx_slot_reap(&heap, slot);
        for (int r = 0; r < REAPERS; r++)
            WAIT_UNTIL(atomic_load(&race->round_done[r]) == rounds);
        CHECK(by_me + atomic_load(&race->reaped[slot]) <= 1, "reaped %llu times", (unsigned long long)(by_me + race->reaped[slot]));
        CHECK(SX_SLOT_STATE(sx_load_acquire(&heap.slots[slot].word)) == SX_SLOT_FREE);
        CHECK(!has_bit(&heap, also, slot) && is_there(&heap, also));
        CHECK(living(&heap) == 1);
    } while (now() < until);
    for (int r = 0; r < REAPERS; r++)
        kill_and_wait(pids[r]);
    CHECK(sx_slot_reap_dead(&heap) == REAPERS);
    sx_heap_release(&heap, also.block);
    expect_quiet(&heap, 0);
    CHECK(free_slots(&heap) == kept_free);
}

/* ---- a reaper that is stopped, then killed ---------------------------------------------------------------------------------- */

static void stop_at_step(void) {
    if (++steps == kill_at)
        raise(SIGSTOP);
}

static void a_stopped_reaper_keeps_its_work_and_a_dead_one_hands_it_on(void) {
    for (uint64_t at = 1;; at++) {
        sx_name_t also = alloc(&heap, 100);
        uint32_t dead = make_dead(&also, 0), slot = sx_slot_reserve(&heap, 0);
        pid_t pid = spawn();
        if (!pid) {
            sx_heap_t mine;
            join(&mine, &heap, slot);
            kill_at = at;
            on_step = stop_at_step;
            _exit(sx_slot_reap(&mine, dead) == 1 ? 0 : 1);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, WUNTRACED) == pid);
        if (WIFEXITED(status)) {
            CHECK(WEXITSTATUS(status) == 0);
            CHECK(sx_slot_reap(&heap, slot) == 1 && sx_slot_reap(&heap, dead) == 0);
            sx_heap_release(&heap, also.block);
            expect_quiet(&heap, 0);
            break;
        }
        CHECK(WIFSTOPPED(status));
        uint64_t word = sx_load_acquire(&heap.slots[dead].word);
        if (SX_SLOT_STATE(word) == SX_SLOT_REAPING) {
            CHECK(sx_slot_reap(&heap, dead) == 0 && sx_slot_reap_dead(&heap) == 0, "a stopped reaper is not dead");
            uint32_t other = sx_slot_reserve(&heap, 0);
            CHECK(other != dead, "its slot is not free");
            CHECK(sx_slot_reap(&heap, other) == 1);
        }
        if (rnd(2)) { /* it goes on: once, and nobody else did */
            kill(pid, SIGCONT);
            CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
            CHECK(sx_slot_reap(&heap, dead) == 0);
        } else {
            kill(pid, SIGKILL);
            CHECK(waitpid(pid, &status, 0) == pid);
            CHECK(sx_slot_reap(&heap, dead) == 1);
        }
        CHECK(sx_slot_reap(&heap, slot) == 1);
        CHECK(is_there(&heap, also));
        sx_heap_release(&heap, also.block);
        expect_quiet(&heap, 0);
        CHECK(free_slots(&heap) == kept_free);
    }
}

static void a_newcomer_in_a_reaped_slot_keeps_its_bits(void) {
    sx_name_t also = alloc(&heap, 100);
    for (int i = 0; i < 50; i++) {
        sx_heap_t newcomer;
        uint32_t slot = make_dead(&also, 1);
        uint32_t before = SX_SLOT_INCARNATION(sx_load_acquire(&heap.slots[slot].word));
        CHECK(sx_slot_reap(&heap, slot) == 1 && sx_slot_reap(&heap, slot) == 0);
        CHECK(sx_slot_reserve(&heap, 1) == slot);
        join(&newcomer, &heap, slot);
        CHECK(newcomer.me->incarnation == before + 1);
        CHECK(sx_heap_hold(&newcomer, also) == 0);
        sx_slot_reap_dead(&heap);
        sx_heap_sweep(&heap);
        CHECK(has_bit(&heap, also, slot));
        CHECK(sx_slot_reap(&heap, slot) == 1);
    }
    sx_heap_release(&heap, also.block);
    expect_quiet(&heap, 0);
}

/* A thread is about to reap a dead one's slot; at that step another thread of its process reaps it and keeps it for a child. */
static uint32_t dead_slot;
static int was_kept;

static void reap_and_keep_at_step(void) {
    if (++steps != kill_at)
        return;
    on_step = NULL;
    was_kept = sx_slot_reap(&heap, dead_slot) == 1;
    CHECK(!was_kept || sx_slot_reserve(&heap, 1) == dead_slot);
}

static void a_slot_kept_since_it_was_looked_at_is_not_reaped(void) {
    was_kept = 1;
    for (uint64_t at = 1; was_kept; at++) {
        dead_slot = make_dead(NULL, 0);
        was_kept = 0, steps = 0, kill_at = at;
        on_step = reap_and_keep_at_step;
        uint32_t reaped = sx_slot_reap_dead(&heap);
        uint64_t word = sx_load_acquire(&heap.slots[dead_slot].word);
        CHECK(SX_SLOT_STATE(word) == (was_kept ? SX_SLOT_RESERVED : SX_SLOT_FREE), "reaped under the child it was kept for");
        CHECK(reaped == !was_kept && (was_kept || at > 2));
        CHECK(sx_slot_reap(&heap, dead_slot) == was_kept);
    }
    expect_quiet(&heap, 0);
    CHECK(free_slots(&heap) == kept_free);
}

static void a_guarded_slot_waits_for_its_guardian(void) {
    sx_heap_t other;
    join(&other, &heap, 0);
    sx_name_t also = alloc(&heap, 100);
    uint32_t slot = make_dead(&also, 1);
    CHECK(sx_slot_reap(&other, slot) == 0 && sx_slot_reap_dead(&other) == 0 && has_bit(&heap, also, slot));
    CHECK(sx_slot_reap_dead(&heap) == 0, "the guardian knows itself when it has read the answers");
    sx_slot_unguard(&heap, slot);
    CHECK(sx_slot_reap_dead(&other) == 1 && !has_bit(&heap, also, slot));
    sx_heap_release(&heap, also.block);
    sx_heap_sweep(&other);
    CHECK(living(&heap) == 0);
    /* and who lives is reaped by nobody */
    CHECK(sx_slot_reap(&heap, other.me->slot) == 0 && sx_slot_reap(&other, heap.me->slot) == 0);
    CHECK(sx_slot_reap(&heap, heap.me->slot) == 0 && sx_slot_reap(&heap, 0) == 0);
    guard(&heap, other.me->slot);
    CHECK(sx_slot_reap(&heap, other.me->slot) == 1);
    expect_quiet(&heap, 0);
}

/* The guardian dies first, and its worker after it. */
static void workers_of_a_dead_guardian_are_reaped_by_anybody(void) {
    sx_name_t also = alloc(&heap, 100);
    uint32_t *worker_slot = shared(sizeof *worker_slot);
    gate_t up = make_gate(), go = make_gate();
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t guardian, worker;
        join(&guardian, &heap, 0);
        *worker_slot = sx_slot_reserve(&guardian, 1);
        pid_t child = fork();
        if (!child) {
            join(&worker, &heap, *worker_slot);
            CHECK(sx_heap_hold(&worker, also) == 0);
            open_gate(up);
            pass_gate(go);
            _exit(0);
        }
        pass_gate(up);
        open_gate(up);
        for (;;)
            pause();
    }
    pass_gate(up);
    CHECK(sx_slot_reap_dead(&heap) == 0);
    kill_and_wait(pid);
    CHECK(sx_slot_reap_dead(&heap) == 1, "the guardian; its worker lives");
    CHECK(has_bit(&heap, also, *worker_slot));
    open_gate(go);
    CHECK(waitpid(-1, NULL, 0) > 0);
    CHECK(sx_slot_reap_dead(&heap) == 1 && !has_bit(&heap, also, *worker_slot));
    sx_heap_release(&heap, also.block);
    expect_quiet(&heap, 0);
}

/* Killed before it has said which process it is. */
static void a_claimant_that_dies_at_any_step_is_reaped(int guarded) {
    int killed = 1;
    for (uint64_t at = 1; killed; at++) {
        uint32_t slot = guarded ? sx_slot_reserve(&heap, 0) : 0;
        pid_t pid = spawn();
        if (!pid) {
            sx_heap_t mine;
            kill_at = at;
            on_step = kill_at_step;
            join(&mine, &heap, slot);
            _exit(0);
        }
        int status = status_of(pid);
        killed = WIFSIGNALED(status);
        sx_slot_reap_dead(&heap);
        if (slot)
            sx_slot_reap(&heap, slot);
        CHECK(free_slots(&heap) == kept_free, "killed at step %llu: a slot is lost", (unsigned long long)at);
    }
}

static void a_newcomer_finds_a_slot_when_all_are_of_the_dead(void) {
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        join(&mine, &heap, 0);
        while (sx_slot_reserve(&mine, 0))
            ;
        _exit(0);
    }
    expect_clean_exit(pid);
    CHECK(free_slots(&heap) == 0);
    sx_heap_t newcomer;
    int code = try_join(&newcomer, &heap, 0);
    if (code) /* who is nobody cannot reap; but the members can */
        CHECK(code == -ENOSPC);
    CHECK(sx_slot_reserve(&heap, 0) != 0, "a member finds one");
    sx_slot_reap_dead(&heap);
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2)
        if (slot != heap.me->slot)
            sx_slot_reap(&heap, slot);
    CHECK(free_slots(&heap) >= kept_free - 1);
    if (!code) {
        guard(&heap, newcomer.me->slot);
        sx_slot_reap(&heap, newcomer.me->slot);
    }
    CHECK(free_slots(&heap) == kept_free);
}

/* ---- what is certain ---------------------------------------------------------------------------------------------------------- */

static void nobody_is_dead_because_descriptors_ran_out(void) {
    pid_t pid = spawn();
    if (!pid)
        for (;;)
            pause();
    uint64_t start_time = sx_process_start_time((uint32_t)pid);
    CHECK(start_time && !sx_process_is_dead((uint32_t)pid, start_time));
    CHECK(sx_process_is_dead((uint32_t)pid, start_time + 1), "another process with this pid");
    struct rlimit old, few;
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int left = 0; left < 3; left++) {
        few = old;
        few.rlim_cur = (rlim_t)(next + left);
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        int dead = sx_process_is_dead((uint32_t)pid, start_time);
        CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
        CHECK(!dead, "a living process is taken for dead with %d descriptors left", left);
    }
    kill(pid, SIGKILL);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK(sx_process_is_dead((uint32_t)pid, start_time), "a zombie without threads is dead");
    CHECK(status_of(pid) != 0);
    CHECK(sx_process_is_dead((uint32_t)pid, start_time), "no such process");
    close(next);
}

static void *outlive_the_leader(void *gate) {
    pass_gate(*(gate_t *)gate);
    _exit(0);
}

static void a_process_whose_first_thread_has_ended_lives(void) {
    gate_t up = make_gate(), go = make_gate();
    pid_t pid = spawn();
    if (!pid) {
        pthread_t thread;
        prctl(PR_SET_PDEATHSIG, 0); /* it is the first thread's */
        CHECK(pthread_create(&thread, NULL, outlive_the_leader, &go) == 0);
        open_gate(up);
        pthread_exit(NULL);
    }
    uint64_t start_time = sx_process_start_time((uint32_t)pid);
    pass_gate(up);
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    for (int zombie = 0; !zombie;) { /* the leader is a zombie */
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        CHECK(n > 0);
        text[n] = 0;
        zombie = strstr(text, ") Z ") != NULL;
    }
    CHECK(!sx_process_is_dead((uint32_t)pid, start_time));
    open_gate(go);
    expect_clean_exit(pid);
    CHECK(sx_process_is_dead((uint32_t)pid, start_time));
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    kept_free = free_slots(&heap);
    nobody_is_dead_because_descriptors_ran_out();
    a_process_whose_first_thread_has_ended_lives();
    a_claimant_that_dies_at_any_step_is_reaped(1);
    a_claimant_that_dies_at_any_step_is_reaped(0);
    a_newcomer_in_a_reaped_slot_keeps_its_bits();
    a_slot_kept_since_it_was_looked_at_is_not_reaped();
    a_guarded_slot_waits_for_its_guardian();
    workers_of_a_dead_guardian_are_reaped_by_anybody();
    a_newcomer_finds_a_slot_when_all_are_of_the_dead();
    do {
        exactly_one_of_many_reaps();
        a_stopped_reaper_keeps_its_work_and_a_dead_one_hands_it_on();
    } while (time_left());
    expect_usable(&heap);
    return 0;
}
