/* spin.c - see spin.h. */
#include "spin.h"

#include <time.h>

#define LONGEST 50000u        /* ns: what a wake takes */
#define TAKEN_AWAY 200000u    /* ns between two looks at the clock: the core was somebody else's */
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
    if (is_due(of))
        return 1;
    if (spin->skip) {
        spin->skip--;
        return 0;
    }
    uint64_t begun = sx_now(), seen = begun;
    if (begun < spin->calm_until)
        return 0;
    while (seen - begun < LONGEST) {
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
            spin->calm = spin->calm ? spin->calm * 2 : SHORTEST_CALM;
            spin->calm = spin->calm < LONGEST_CALM ? spin->calm : LONGEST_CALM;
            spin->calm_until = seen + spin->calm;
            return 0;
        }
    }
    miss(spin);
    return 0;
}
