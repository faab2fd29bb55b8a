/* spins.c - looking again before sleeping: when it looks, and when it has learnt not to. */
#include "harness.h"

/* spin.c once more, by a clock of our own: a machine with something else to do would teach it other things */
#include <time.h>

static uint64_t the_time = 1000000000;

static int read_our_clock(clockid_t clock, struct timespec *time) {
    (void)clock;
    the_time += 1000; /* what 32 looks take */
    *time = (struct timespec){.tv_sec = (time_t)(the_time / 1000000000), .tv_nsec = (long)(the_time % 1000000000)};
    return 0;
}

static int yields;

static int count_yield(void) {
    return yields++;
}

static int moves;

static void count_move(void) {
    moves++;
}

#define clock_gettime read_our_clock
#define sx_place_leave count_move
#define sched_yield count_yield
#define sx_now our_now
#define sx_spin our_spin
#include "spin.c"
#undef clock_gettime
#undef sched_yield
#undef sx_place_leave
#undef sx_now
#undef sx_spin

static sx_atomic32_t word;
static uint32_t looks, due_at; /* at this look the word is due */

static int is_due(const void *of) {
    CHECK(of == &word);
    return ++looks == due_at || sx_load_acquire(&word);
}

static int spins(sx_spin_t *spin, uint32_t at) {
    looks = 0;
    due_at = at;
    return our_spin(spin, is_due, &word);
}

static void what_is_due_is_seen_at_once(void) {
    sx_spin_t spin = {0};
    CHECK(spins(&spin, 1) == 1 && looks == 1);
    spin.skip = 5;
    CHECK(spins(&spin, 1) == 1 && spin.skip == 5);
}

static void spins_in_vain_become_rare_and_one_success_makes_them_common(void) {
    sx_spin_t spin = {0};
    for (uint32_t misses = 1; misses <= 9; misses++) {
        uint32_t skipped = 0;
        uint64_t begun = the_time;
        CHECK(spins(&spin, 0) == 0 && looks > 1);
        CHECK(the_time - begun >= LONGEST && the_time - begun < LONGEST + 3000);
        uint32_t wanted = (1u << (misses < 6 ? misses : 6)) - 1;
        CHECK(spin.skip == wanted, "%u after %u", spin.skip, misses);
        while (spin.skip) {
            CHECK(spins(&spin, 0) == 0 && looks == 1);
            skipped++;
        }
        CHECK(skipped == wanted);
    }
    CHECK(spins(&spin, 20) == 1 && looks == 20 && spin.misses == 0);
    CHECK(spins(&spin, 20) == 1);
}

static int loses_its_core(const void *of) {
    (void)of;
    looks++;
    the_time += TAKEN_AWAY;
    return 0;
}

static void nobody_spins_for_a_while_after_the_core_was_taken_away_twice(void) {
    sx_spin_t spin = {0};
    uint64_t calm = 0;
    looks = 0;
    CHECK(our_spin(&spin, loses_its_core, &word) == 0 && looks > 1 && !spin.calm_until, "once is chance");
    for (int i = 0; i < 9; i++) {
        looks = 0;
        CHECK(our_spin(&spin, loses_its_core, &word) == 0 && looks > 1 && spin.skip == 0);
        CHECK(spin.calm > calm || spin.calm == LONGEST_CALM);
        calm = spin.calm;
        CHECK(spins(&spin, 0) == 0 && looks == 1, "it is calm");
        the_time = spin.calm_until - 2000;
        CHECK(spins(&spin, 0) == 0 && looks == 1, "still");
        the_time = spin.calm_until;
        spin.taken_at = the_time;
    }
    CHECK(spins(&spin, 20) == 1 && spin.calm == 0);
    the_time += TWICE_IN;
    looks = 0;
    CHECK(our_spin(&spin, loses_its_core, &word) == 0 && looks > 1 && spin.calm == 0, "the last time was long ago");
}

static int lends_its_core(const void *of) {
    (void)of;
    the_time += 30000;
    return ++looks == 3;
}

static void who_works_for_us_may_have_the_core(void) {
    sx_spin_t spin = {0};
    for (int i = 0; i < 9; i++) {
        looks = 0;
        CHECK(our_spin(&spin, lends_its_core, &word) == 1 && looks == 3 && !spin.calm_until && !spin.misses);
    }
}

static uint64_t sent;

static int after_150_us(const void *of) {
    (void)of;
    looks++;
    return the_time - sent > 150000;
}

static void who_waits_for_a_sleeper_spins_longer_but_not_after_a_pause(void) {
    sx_spin_t spin = {.extra = SX_WAKE};
    sent = the_time;
    CHECK(our_spin(&spin, after_150_us, &word) == 1, "200 us are longer than 150");
    CHECK(!spin.extra && !spin.misses);
    sent = the_time;
    CHECK(our_spin(&spin, after_150_us, &word) == 0 && spin.misses == 1, "100 us are not");
    spin.misses = spin.skip = 0;
    spin.hold = 1;
    looks = 0;
    sent = the_time;
    CHECK(our_spin(&spin, after_150_us, &word) == 0 && looks == 1 && !spin.hold && !spin.misses);
}

static void who_has_woken_a_third_gives_the_core_away_once(void) {
    sx_spin_t spin = {.gives_way = 1};
    yields = 0;
    CHECK(spins(&spin, 20) == 1 && yields == 1 && !spin.gives_way);
    CHECK(spins(&spin, 20) == 1 && yields == 1);
    spin = (sx_spin_t){.gives_way = 1, .skip = 1};
    CHECK(spins(&spin, 0) == 0 && yields == 1 && !spin.gives_way, "who sleeps has given it away");
}

static void who_shares_the_core_of_a_worker_leaves_it_before_a_spin(void) {
    sx_spin_t spin = {.leaves = 1};
    moves = 0;
    CHECK(spins(&spin, 1) == 1 && !moves && !spin.leaves, "there was nothing to wait for");
    spin.leaves = 1;
    CHECK(spins(&spin, 20) == 1 && moves == 1 && !spin.leaves);
    CHECK(spins(&spin, 20) == 1 && moves == 1);
    spin = (sx_spin_t){.leaves = 1, .skip = 1};
    CHECK(spins(&spin, 0) == 0 && moves == 1 && !spin.leaves, "who sleeps is not in the way");
}

static void a_glance_is_as_long_as_it_says(void) {
    sx_spin_t glance = {.longest = 5000};
    uint64_t begun = the_time;
    CHECK(spins(&glance, 0) == 0 && the_time - begun >= 5000 && the_time - begun < 8000);
}

static void *store_later(void *unused) {
    struct timespec pause = {.tv_nsec = 2000};
    (void)unused;
    nanosleep(&pause, NULL);
    sx_store_release(&word, 1);
    return NULL;
}

static void what_another_thread_stores_is_seen(void) {
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        sx_spin_t spin = {0};
        sx_store_release(&word, 0);
        CHECK(pthread_create(&thread, NULL, store_later, NULL) == 0);
        due_at = 0;
        while (!sx_spin(&spin, is_due, &word))
            ;
        pthread_join(thread, NULL);
    }
    sx_store_release(&word, 0);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    what_is_due_is_seen_at_once();
    spins_in_vain_become_rare_and_one_success_makes_them_common();
    nobody_spins_for_a_while_after_the_core_was_taken_away_twice();
    who_works_for_us_may_have_the_core();
    who_waits_for_a_sleeper_spins_longer_but_not_after_a_pause();
    who_has_woken_a_third_gives_the_core_away_once();
    who_shares_the_core_of_a_worker_leaves_it_before_a_spin();
    a_glance_is_as_long_as_it_says();
    what_another_thread_stores_is_seen();
    return 0;
}
