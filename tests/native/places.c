/* places.c - a sleeper is pulled to the core of the thread that wakes it, and has its own mask back when it is awake. */
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
    return 0;
}
