/* places.c - who sleeps is woken on the core where it should be, and has its own mask back when it is awake. */
#include "harness.h"
#include "place.h"
#include <sys/syscall.h>

static cpu_set_t all;
static int first, second; /* cores that this process may use */
static sx_sleepers_t sleepers;

static cpu_set_t only(int core) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(core, &mask);
    return mask;
}

static void use(pid_t thread, cpu_set_t mask) {
    CHECK(sched_setaffinity(thread, sizeof mask, &mask) == 0);
}

static int uses(pid_t thread, cpu_set_t mask) {
    cpu_set_t now;
    CHECK(sched_getaffinity(thread, sizeof now, &now) == 0);
    return CPU_EQUAL(&now, &mask);
}

typedef struct {
    gate_t asleep, wake, awake;
    int core;       /* where it falls asleep */
    cpu_set_t mask; /* its own */
    pid_t thread;
    pthread_t handle;
} sleeper_t;

static void *sleep_and_wake(void *of) {
    sleeper_t *it = of;
    it->thread = (pid_t)syscall(SYS_gettid);
    use(0, only(it->core));
    sx_place_falls_asleep(&sleepers);
    use(0, it->mask);
    open_gate(it->asleep);
    pass_gate(it->wake);
    sx_place_is_awake(&sleepers);
    open_gate(it->awake);
    pass_gate(it->wake);
    return NULL;
}

static sleeper_t *fall_asleep(int core, cpu_set_t mask) {
    sleeper_t *it = calloc(1, sizeof *it);
    *it = (sleeper_t){.asleep = make_gate(), .wake = make_gate(), .awake = make_gate(), .core = core, .mask = mask};
    CHECK(pthread_create(&it->handle, NULL, sleep_and_wake, it) == 0);
    pass_gate(it->asleep);
    return it;
}

static void is_woken(sleeper_t *it) {
    open_gate(it->wake);
    pass_gate(it->awake);
}

static void ends(sleeper_t *it) {
    open_gate(it->wake);
    pthread_join(it->handle, NULL);
    for (int end = 0; end < 2; end++) {
        close(it->asleep.ends[end]);
        close(it->wake.ends[end]);
        close(it->awake.ends[end]);
    }
    free(it);
}

static void who_sleeps_on_another_core_is_pulled_until_it_is_awake(void) {
    sleeper_t *it = fall_asleep(second, all);
    sx_place_here(&sleepers);
    CHECK(uses(it->thread, only(first)) && sleepers.pulled == (uint32_t)it->thread);
    is_woken(it);
    CHECK(uses(it->thread, all) && !sleepers.pulled);
    ends(it);
}

static void who_sleeps_here_is_left_alone(void) {
    sleeper_t *it = fall_asleep(first, all);
    sx_place_here(&sleepers);
    CHECK(uses(it->thread, all) && !sleepers.pulled);
    is_woken(it);
    CHECK(uses(it->thread, all));
    ends(it);
}

static void who_may_not_be_here_is_left_alone(void) {
    sleeper_t *it = fall_asleep(second, only(second));
    sx_place_here(&sleepers);
    CHECK(uses(it->thread, only(second)) && !sleepers.pulled);
    is_woken(it);
    ends(it);
}

static void if_another_is_woken_the_pulled_one_waits_for_its_own_wake_or_the_next_pull(void) {
    sleeper_t *other = fall_asleep(second, all), *it = fall_asleep(second, all);
    sx_place_here(&sleepers);
    is_woken(other);
    CHECK(uses(it->thread, only(first)) && uses(other->thread, all));
    sleepers.thread = (uint32_t)other->thread; /* as if it slept again */
    sx_place_here(&sleepers);
    CHECK(uses(it->thread, all) && uses(other->thread, only(first)), "one at a time");
    use(0, only(second));
    sleepers.core = (uint32_t)first + 1;
    sx_place_here(&sleepers);
    CHECK(uses(other->thread, only(second)) && CPU_EQUAL((cpu_set_t *)sleepers.mask.words, &all), "its own mask is kept");
    use(0, only(first));
    is_woken(it);
    CHECK(uses(other->thread, only(second)));
    ends(it);
    ends(other);
    sleepers = (sx_sleepers_t){0};
}

static void a_sleeper_that_has_ended_is_no_matter(void) {
    sleeper_t *it = fall_asleep(second, all);
    is_woken(it);
    ends(it);
    sx_place_here(&sleepers);
    CHECK(!sleepers.pulled);
}

/* ---- a worker is woken on another core than the waker's --- */

static sx_slot_t slot;

typedef struct {
    gate_t asleep, wake, awake;
    int core;       /* where it falls asleep */
    cpu_set_t mask; /* its own */
    pthread_t handle;
} worker_t;

static void *work(void *of) {
    worker_t *it = of;
    sx_mask_t mask = {0};
    sx_store_relaxed(&slot.pid, (uint32_t)syscall(SYS_gettid));
    use(0, only(it->core));
    use(0, it->mask);
    sx_place_note(&slot, &mask);
    sx_store_relaxed(&slot.waiting, 1);
    open_gate(it->asleep);
    pass_gate(it->wake);
    sx_store_relaxed(&slot.waiting, 0);
    sx_place_restore(&slot, &mask);
    CHECK(uses(0, it->mask) && sx_load_relaxed(&slot.core) == (uint32_t)sched_getcpu() + 1);
    open_gate(it->awake);
    return NULL;
}

static void is_woken_from_here(int core, cpu_set_t mask, cpu_set_t meanwhile) {
    worker_t it = {.asleep = make_gate(), .wake = make_gate(), .awake = make_gate(), .core = core, .mask = mask};
    slot = (sx_slot_t){0};
    CHECK(pthread_create(&it.handle, NULL, work, &it) == 0);
    pass_gate(it.asleep);
    for (int repeated = 0; repeated < 2; repeated++) {
        sx_place_elsewhere(&slot);
        CHECK(uses((pid_t)sx_load_relaxed(&slot.pid), meanwhile));
    }
    open_gate(it.wake);
    pass_gate(it.awake);
    pthread_join(it.handle, NULL);
    for (int end = 0; end < 2; end++) {
        close(it.asleep.ends[end]);
        close(it.wake.ends[end]);
        close(it.awake.ends[end]);
    }
}

static void a_worker_is_woken_elsewhere_wherever_it_fell_asleep(void) {
    cpu_set_t others = all;
    CPU_CLR(first, &others);
    is_woken_from_here(first, all, others);
    is_woken_from_here(second, all, others);
    is_woken_from_here(first, only(first), only(first));
    is_woken_from_here(second, only(second), only(second));
}

static sx_atomic32_t is_over;

static void *wake_whoever_sleeps(void *unused) {
    (void)unused;
    use(0, all);
    while (!sx_load_relaxed(&is_over))
        if (sx_load_relaxed(&slot.waiting))
            sx_place_elsewhere(&slot);
    return NULL;
}

static void who_wakes_up_by_itself_works_with_its_own_mask(void) {
    pthread_t waker;
    sx_mask_t mask = {0};
    slot = (sx_slot_t){0};
    sx_store_relaxed(&slot.pid, (uint32_t)syscall(SYS_gettid));
    use(0, all);
    CHECK(pthread_create(&waker, NULL, wake_whoever_sleeps, NULL) == 0);
    double end = now() + seconds;
    while (now() < end) {
        sx_place_note(&slot, &mask);
        sx_store_relaxed(&slot.waiting, 1);
        for (uint32_t i = rnd(300); i; i--)
            sx_relax();
        sx_store_relaxed(&slot.waiting, 0);
        sx_place_restore(&slot, &mask);
        for (uint32_t i = rnd(3000); i; i--)
            sx_relax();
        CHECK(uses(0, all));
    }
    sx_store_relaxed(&is_over, 1);
    pthread_join(waker, NULL);
    use(0, only(first));
}

static int lefts;

static void has_left(void) {
    cpu_set_t mask;
    CHECK(sched_getaffinity(0, sizeof mask, &mask) == 0 && CPU_COUNT(&mask) == CPU_COUNT(&all) - 1);
    CHECK(CPU_ISSET(sched_getcpu(), &mask));
    lefts++;
}

static void who_shares_a_core_with_a_worker_can_tell_and_leave(void) {
    sx_store_relaxed(&slot.core, (uint32_t)first + 1);
    CHECK(sx_place_is_shared(&slot));
    sx_store_relaxed(&slot.core, (uint32_t)second + 1);
    CHECK(!sx_place_is_shared(&slot));
    sx_store_relaxed(&slot.core, 0);
    CHECK(!sx_place_is_shared(&slot), "nobody knows");
    sx_place_leave();
    CHECK(uses(0, only(first)) && sched_getcpu() == first, "it may be nowhere else");
    use(0, all);
    on_step = has_left;
    sx_place_leave();
    on_step = NULL;
    CHECK(lefts == 1 && uses(0, all));
    use(0, only(first));
}

int main(int argc, char **argv) {
    begin(argc, argv);
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    if (CPU_COUNT(&all) < 2)
        return 0; /* there is no elsewhere */
    while (!CPU_ISSET(first, &all))
        first++;
    second = first + 1;
    while (!CPU_ISSET(second, &all))
        second++;
    use(0, only(first));
    who_sleeps_on_another_core_is_pulled_until_it_is_awake();
    who_sleeps_here_is_left_alone();
    who_may_not_be_here_is_left_alone();
    if_another_is_woken_the_pulled_one_waits_for_its_own_wake_or_the_next_pull();
    a_sleeper_that_has_ended_is_no_matter();
    a_worker_is_woken_elsewhere_wherever_it_fell_asleep();
    who_shares_a_core_with_a_worker_can_tell_and_leave();
    who_wakes_up_by_itself_works_with_its_own_mask();
    return 0;
}
