/* spin.h - how long it is worth to look again before going to sleep.
 *
 * Some facts (two virtual cores; measured with the prototypes of this package): to wake a sleeper takes 50 us, of which the waker
 * pays 8 to 13; to see a word change while spinning takes 0.1 us. A spinner that shares its core with who it waits for sees nothing.
 *
 * Two that wait for each other teach each other to sleep: who was just woken answers later than who was awake, so the other's spin is
 * in vain, it sleeps, and has to be woken in turn.
 *
 * The kernel may put a spinner and who wakes for it on one core, beside an idle one, and the spinner is away for as long as the other
 * works: 10 to 200 us. Who has nothing to do with us takes the core for a slice of the scheduler, 1.4 ms or more. And the other way
 * round: who is woken on a spinner's core may have to wait until the spin is over, 100 us.
 *
 * What this means for us: spin for about what two wakes cost, the most that are between two calls where each is submitted by a
 * thread that a callback has woken, and for two more if the other had to be woken, but not after a pause, when all are cold. If a
 * third was woken, which brings about what is waited for, give the core away once, since it may wait for this one. (Not to the one
 * that is waited for: two that share a core give it to each other, at 9 us a call, and never part. Who waits for a worker leaves a
 * core that it shares with it: place.h.) After a spin in vain sleep at once for 1, 3, 7 ... 63 waits; if the core was taken away during spins twice in
 * 50 ms, for a millisecond each, there are none to spare: nobody here spins for 10 ms, then 20, up to 640. So who waits for calls
 * of a millisecond spends two microseconds for each, and a pool with more workers than cores does not fight over them.
 */
#ifndef SX_SPIN_H
#define SX_SPIN_H

#include "atomics.h"

typedef struct {
    uint64_t longest; /* nanoseconds of each spin; 0: as above */
    uint64_t extra;  /* and for the next one, since who is waited for has just been woken: SX_WAKE */
    uint32_t gives_way; /* 1: before the next spin the core is given away once */
    uint32_t leaves;    /* 1: it is left for good before that: who is waited for has it, too */
    uint32_t hold;   /* 1: the next wait does not spin: it is the first after a pause, and who is waited for has to be woken */
    uint32_t skip;   /* waits that do not spin */
    uint32_t misses; /* spins in vain, one after the other */
    uint64_t calm;   /* nanoseconds of the last time without spins */
    uint64_t calm_until;
    uint64_t taken_at; /* when the core was last taken away */
} sx_spin_t;

#define SX_WAKE 100000u

uint64_t sx_now(void); /* nanoseconds, CLOCK_MONOTONIC */
/* Looks at `is_due(of)` for a while: 1 as soon as it is true, 0 if it is time to sleep. */
int sx_spin(sx_spin_t *spin, int (*is_due)(const void *of), const void *of);

#endif
