/* slot.h - a process's place in the heap: taken, kept for a child, reaped after its death.
 *
 * Guarantees
 *   S1  a slot belongs to (pid, start time): a pid that is used again is another process
 *   S2  a dead process's slot is reaped by exactly one: whoever moves it to REAPING. That one's death hands the work on: every
 *       step is idempotent and is begun again
 *   S3  the slot becomes FREE last, when no bit of it is left anywhere: a newcomer's bits are never taken for its predecessor's
 *   S4  a slot with a living guardian (the pool's parent) is reaped by the guardian alone, since only that one can read the
 *       answers that the worker left
 * Assumption: the caller of sx_slot_reap() is certain of the death, and has read those answers.
 */
#ifndef SX_SLOT_H
#define SX_SLOT_H

#include "heap.h"

/* Takes a free slot for this process (reserved 0), or the one that another process keeps for it. 0, -ENOSPC, -EOWNERDEAD. */
int sx_slot_claim(sx_heap_t *heap, uint32_t reserved);
/* Keeps a slot for a process that this one is about to start; guarded: this process alone will reap it. 0: none is free. */
uint32_t sx_slot_reserve(sx_heap_t *heap, int guarded);
/* All that the dead process held comes back. 1: reaped by this call; 0: not ours to reap, or done already. */
int sx_slot_reap(sx_heap_t *heap, uint32_t slot);
/* A process that has taken all the answers of its worker and wants no more of it (its pool is closed): anybody may reap it. */
void sx_slot_unguard(sx_heap_t *heap, uint32_t slot);
/* Wakes the process of a slot if it sleeps on its bell. */
void sx_slot_ring(sx_slot_t *slot);
/* Looks at every slot and reaps what is certainly dead and not guarded by another living process. Returns how many. */
uint32_t sx_slot_reap_dead(sx_heap_t *heap);

#endif
