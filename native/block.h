/* block.h - who holds a block: the ownership protocol on one descriptor. Lock-free: no function here waits.
 *
 * Guarantees
 *   B1  bit s of holders is set only by the process of slot s (its outbox bit too); nobody else sets it
 *   B2  sx_block_hold() returned 1  =>  the block stays LIVE with that birth until that same bit is cleared
 *   B3  every clearing of a bit is followed by a try_free by somebody: the clearer, or, if it died, the reaper of its slot
 *   B4  IDLE -> LIVE only by the owner of the extent, by compare-and-swap, with its own bit set first
 * Why B2 holds: hold sets the bit and then bumps the epoch, verifying in the same instruction. A freeing CAS after the bump
 * compares with a word that was loaded after the bump, so its scan, which comes later still, reads the bit as set; a freeing
 * CAS before the bump contradicts what the bump saw. The sender of a name must not set the receiver's bit: a bit cannot count,
 * and nobody could tell whose it was once the sender is dead.
 */
#ifndef SX_BLOCK_H
#define SX_BLOCK_H

#include "layout.h"

/* What try_free needs to know of the heap around the block. */
typedef struct {
    const sx_atomic32_t *slot_high;
    const sx_atomic64_t *tickets;
    const sx_atomic32_t *ticket_high;
} sx_scan_t;

/* IDLE -> LIVE. The caller owns the extent and has written run, bytes and the head mark. 1: LIVE and held by slot, *birth set. */
int sx_block_alloc(sx_block_t *block, uint32_t slot, uint64_t *birth);

/* Set the bit of slot, if the block still is the one that was born as `birth`. 1: held; 0: stale; -1: stale, and the bit stood
 * for a moment, which somebody may have taken for a holder's: the caller calls sx_block_try_free.
 * Caller: the process of the slot, under its private mutex, local count going 0 -> 1. */
int sx_block_hold(sx_block_t *block, uint32_t slot, uint64_t birth);

/* Clear the bit of slot. The caller (the process of the slot, under its private mutex, count going 1 -> 0; or the slot's
 * reaper; for an outbox bit, the worker's parent) calls sx_block_try_free afterwards. */
void sx_block_clear(sx_block_t *block, uint32_t slot);

/* LIVE -> FREE if nobody holds the block. Anybody may call it at any time. 1: this call freed it. */
int sx_block_try_free(sx_block_t *block, uint32_t number, const sx_scan_t *scan);

/* FREE -> IDLE. Only the owner of the extent. 1: the run is the owner's again; 0: not FREE (LIVE, or in TRIM: hinted again). */
int sx_block_take_back(sx_block_t *block);

/* FREE -> TRIM(slot), and back. Anybody. */
int sx_block_begin_trim(sx_block_t *block, uint32_t slot);
void sx_block_end_trim(sx_block_t *block);

/* LIVE, and born as `birth`: says nothing about the next moment unless the caller holds it. */
int sx_block_is(const sx_block_t *block, uint64_t birth);

static inline uint32_t sx_block_first(const sx_block_t *block) {
    return (uint32_t)(sx_load_relaxed(&block->run) >> 32);
}
static inline uint32_t sx_block_granules(const sx_block_t *block) {
    return (uint32_t)sx_load_relaxed(&block->run);
}

#endif
