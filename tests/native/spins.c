/* spins.c - looking again before sleeping: when it looks, and when it has learnt not to. */
#include "harness.h"
#include "spin.h"

#include <time.h>

static sx_atomic32_t word;
static uint32_t looks, due_at; /* at this look the word is due */

static int is_due(const void *of) {
    CHECK(of == &word);
    return ++looks == due_at || sx_load_acquire(&word);
}

static int spins(sx_spin_t *spin, uint32_t at) {
    looks = 0;
    due_at = at;
    return sx_spin(spin, is_due, &word);
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
        do { /* a core that was taken away meanwhile teaches something else: that is another test */
            spin.calm_until = 0;
            CHECK(spins(&spin, 0) == 0 && looks > 1);
        } while (spin.calm_until);
        uint32_t wanted = (1u << (misses < 6 ? misses : 6)) - 1;
        CHECK(spin.skip == wanted, "%u after %u", spin.skip, misses);
        while (spin.skip) {
            CHECK(spins(&spin, 0) == 0 && looks == 1);
            skipped++;
        }
        CHECK(skipped == wanted);
    }
    spin.calm_until = 0;
    CHECK(spins(&spin, 20) == 1 && looks == 20 && spin.misses == 0);
    CHECK(spins(&spin, 20) == 1);
}

static int sleeps(const void *of) {
    struct timespec pause = {.tv_nsec = 1000000};
    (void)of;
    looks++;
    nanosleep(&pause, NULL); /* as if the core were somebody else's */
    return 0;
}

static void nobody_spins_for_a_while_after_the_core_was_taken_away_twice(void) {
    sx_spin_t spin = {0};
    uint64_t calm = 0;
    CHECK(sx_spin(&spin, sleeps, &word) == 0 && looks > 1 && !spin.calm_until, "once is chance");
    for (int i = 0; i < 9; i++) {
        looks = 0;
        CHECK(sx_spin(&spin, sleeps, &word) == 0 && looks > 1 && spin.skip == 0);
        CHECK(spin.calm > calm || spin.calm == 640000000);
        calm = spin.calm;
        looks = 0;
        CHECK(sx_spin(&spin, sleeps, &word) == 0 && looks == 1, "it is calm");
        spin.calm_until = 0;
    }
    CHECK(spins(&spin, 20) == 1 && spin.calm == 0);
}

static int after_80_us(const void *of) {
    static uint64_t begun;
    if (of == NULL)
        begun = sx_now();
    looks++;
    return sx_now() - begun > 80000;
}

static void who_waits_for_a_sleeper_spins_longer_but_not_after_a_pause(void) {
    sx_spin_t spin = {.extra = SX_WAKE};
    do { /* unless the core was taken away */
        spin = (sx_spin_t){.extra = SX_WAKE};
        after_80_us(NULL);
    } while (!sx_spin(&spin, after_80_us, &word) && spin.taken_at);
    CHECK(!spin.extra && !spin.misses, "150 us are longer than 80");
    spin.hold = 1;
    looks = 0;
    after_80_us(NULL);
    CHECK(sx_spin(&spin, after_80_us, &word) == 0 && looks == 2 && !spin.hold && !spin.misses);
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
        while (!spins(&spin, 0))
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
    who_waits_for_a_sleeper_spins_longer_but_not_after_a_pause();
    what_another_thread_stores_is_seen();
    return 0;
}
