/* place.h - who hand calls to each other are on two cores.
 *
 * Some facts (two virtual cores): the kernel wakes a sleeper where it fell asleep, or on the waker's core, even if the other is
 * idle: what a virtual machine's halted core looks like is that somebody else has it (`vcpu_is_preempted`). It leaves it there
 * while little happens. A worker and a parent that share a core never meet while either spins: each hand-over is two switches,
 * 10 us instead of 0.3, or 200 us if a spin was in vain, and each of them may bring the other back to its own core: after a rest
 * of a second 70 to 400 calls in a row took 50 us each. The kernel has no call for "somewhere else", but a thread is not woken on
 * a core that its affinity excludes, and leaves one that it excludes at once (40 us).
 *
 * What this means for us: who is about to wake a worker takes its own core out of the sleeper's mask first (2 us), and the sleeper
 * puts its mask back when it is awake. A worker notes the core as it falls asleep and as it is awake; who is about to spin for the
 * answer of one that is awake on its own core leaves that, and has its mask back at once.
 *
 * `moved` in the sleeper's slot   0 -> BUSY (the waker, by compare-and-swap) -> MOVED (the waker, mask changed) -> 0 (the sleeper,
 * mask restored). The sleeper notes its mask only while `moved` is 0 before and after: then nobody had changed it. Who wakes up by
 * itself never works with another's mask: the waker looks at `waiting` when it has said BUSY, the sleeper at `moved` when it has said
 * that it is awake, each behind a fence, so that one of them sees the other; and the sleeper waits for the end of BUSY. A waker
 * killed in between leaves BUSY for ever: nothing is moved any more, and the sleeper ends with its parent.
 * A mask that somebody else sets from outside while the sleeper is moved, or a thread leaves, is lost; and to a mask that was set
 * the kernel does not add the cores that a control group is given later.
 *
 * The other way round for a thread that is about to wake another of its process, and then to sleep until that one wakes it: both
 * belong on one core. The kernel would wake the other where it ran last, maybe beside a worker that spins, and leaves it waiting
 * there until the spin is over, in vain, since the next call would have come of this. So who falls asleep notes the core and its
 * thread; who is about to wake it from another core pulls it: puts this core alone into its mask, and the sleeper puts its mask
 * back when it is awake. Of several that sleep for one event the kernel wakes the last; if it wakes another, the pulled one is
 * confined to that core until it is woken in turn, or the next is pulled.
 */
#ifndef SX_PLACE_H
#define SX_PLACE_H

#include "layout.h"

typedef struct {
    uint64_t words[16]; /* 1024 cores; on a larger machine nothing is moved */
    int known;
} sx_mask_t;

/* The worker, before it says that it sleeps, and when it has said that it is awake. */
void sx_place_note(sx_slot_t *slot, sx_mask_t *mask);
void sx_place_restore(sx_slot_t *slot, const sx_mask_t *mask);
/* The waker, before the wake. */
void sx_place_elsewhere(sx_slot_t *slot);
/* Whether the worker was last seen on this core. */
int sx_place_is_shared(const sx_slot_t *slot);
/* This thread goes to another core, if it may use one. */
void sx_place_leave(void);

/* Threads of one process that sleep for the same; under one lock. */
typedef struct {
    uint32_t thread, core; /* which fell asleep last; and where, plus one */
    uint32_t pulled;       /* the thread whose mask is not its own, or 0 */
    sx_mask_t mask;        /* its own */
} sx_sleepers_t;

void sx_place_falls_asleep(sx_sleepers_t *sleepers);
void sx_place_is_awake(sx_sleepers_t *sleepers);
/* The waker, before the wake. */
void sx_place_here(sx_sleepers_t *sleepers);

#endif
