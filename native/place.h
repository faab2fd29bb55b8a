/* place.h - a sleeper is woken on another core than the waker's.
 *
 * Some facts (two cores): the kernel wakes a sleeper where it fell asleep, and leaves it there while little happens; a worker
 * and a parent that share a core never meet while either spins, and each hand-over is two switches, 10 us instead of 0.3. The
 * kernel has no call for "somewhere else", but a thread is not woken on a core that its affinity excludes.
 *
 * What this means for us: who falls asleep notes the core. Who is about to wake it from that very core takes the core out of
 * the sleeper's mask first (2 us, seldom), and the sleeper puts its mask back when it is awake.
 *
 * `moved` in the sleeper's slot   0 -> BUSY (the waker, by compare-and-swap) -> MOVED (the waker, mask changed) -> 0 (the sleeper,
 * mask restored). The sleeper notes its mask only while `moved` is 0 before and after: then nobody had changed it. A waker killed
 * in between leaves BUSY for ever: nothing is moved any more, and the sleeper ends with its parent.
 * A mask that somebody else sets from outside while the sleeper is moved is lost.
 */
#ifndef SX_PLACE_H
#define SX_PLACE_H

#include "layout.h"

typedef struct {
    uint64_t words[16]; /* 1024 cores; on a larger machine nothing is moved */
    int known;
} sx_mask_t;

/* The sleeper, before it says that it sleeps, and when it is awake. */
void sx_place_note(sx_slot_t *slot, sx_mask_t *mask);
void sx_place_restore(sx_slot_t *slot, const sx_mask_t *mask);
/* The waker, before the wake. */
void sx_place_elsewhere(sx_slot_t *slot);

#endif
