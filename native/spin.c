/* spin.c - see spin.h. */
#include "spin.h"

#include "place.h"

#include <sched.h>
#include <time.h>

#define LONGEST 100000u       /* ns: what two wakes take */
#define TAKEN_AWAY 1000000u   /* ns between two looks at the clock: the core was somebody else's */
#define TWICE_IN 50000000u
#define MOST_MISSES 6         /* 63 waits without */
#define SHORTEST_CALM 10000000u
#define LONGEST_CALM 640000000u
#define LOOKS 32 /* at the word, for each at the clock */

uint64_t sx_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void miss(sx_spin_t *spin) {
    spin->misses += spin->misses < MOST_MISSES;
    spin->skip = (1u << spin->misses) - 1;
}

int sx_spin(sx_spin_t *spin, int (*is_due)(const void *of), const void *of) {
    uint64_t longest = (spin->longest ? spin->longest : LONGEST) + spin->extra;
    spin->extra = 0;
    uint32_t gives_way = spin->gives_way;
    spin->gives_way = 0;
    uint32_t leaves = spin->leaves;
    spin->leaves = 0;
    uint32_t hold = spin->hold;
    spin->hold = 0;
    if (is_due(of))
        return 1;
    if (hold)
        return 0;
    if (spin->skip) {
        spin->skip--;
        return 0;
    }
    uint64_t begun = sx_now(), seen = begun;
    if (begun < spin->calm_until)
        return 0;
    if (gives_way)
        sched_yield();
    if (leaves) {
        sx_place_leave();
        seen = begun = sx_now();
    }
    while (seen - begun < longest) {
        for (int i = 0; i < LOOKS; i++) {
            if (is_due(of)) {
                spin->misses = 0;
                spin->calm = 0;
                return 1;
            }
            sx_relax();
        }
        uint64_t before = seen;
        seen = sx_now();
        if (seen - before > TAKEN_AWAY) {
            uint64_t last = spin->taken_at;
            spin->taken_at = seen;
            if (seen - last > TWICE_IN)
                return 0;
            spin->calm = spin->calm ? spin->calm * 2 : SHORTEST_CALM;
            spin->calm = spin->calm < LONGEST_CALM ? spin->calm : LONGEST_CALM;
            spin->calm_until = seen + spin->calm;
            return 0;
        }
    }
    miss(spin);
    return 0;
}
