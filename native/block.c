/* block.c - the ownership protocol on one block descriptor; see block.h. */
#include "block.h"

int sx_block_try_free(sx_block_t *block, uint32_t number, const sx_scan_t *scan) {
    for (;;) {
        /* SYNC POINT last-holders: my clearing before my scan, against the other last holder's; without it both of two last
         * droppers may see the other's bit, and nobody frees. */
        sx_fence_seq_cst();
        uint64_t seen = sx_load_acquire(&block->state);
        if (SX_STATE(seen) != SX_LIVE)
            return 0;
        /* loaded after the state word: a slot raises the mark before its first hold, and that hold would move the epoch */
        uint32_t slots = sx_load_acquire(scan->slot_high), words = slots < SX_SLOTS ? (slots + 63) / 64 : SX_HOLDER_WORDS;
        for (uint32_t w = 0; w < words; w++) {
            SX_STEP();
            /* SYNC POINT reuse: what the holders did to the data happens before the block is handed out again */
            if (sx_load_acquire(&block->holders[w]))
                return 0;
        }
        if (seen & SX_TICKETED) {
            uint32_t entries = sx_load_acquire(scan->ticket_high);
            for (uint32_t t = 0; t < entries && t < SX_TICKETS; t++) {
                uint64_t ticket = sx_load_acquire(&scan->tickets[t]);
                if ((ticket & SX_TICKET_OPEN) && SX_TICKET_BLOCK(ticket) == number)
                    return 0;
            }
        }
        SX_STEP();
#ifdef SX_FAULT_NO_EPOCH /* the fault that the stress test must find: a scan that forgives a hold in the middle of it */
        uint64_t now = sx_load_acquire(&block->state);
        if (SX_STATE(now) == SX_LIVE && SX_GEN(now) == SX_GEN(seen))
            seen = now;
#endif
        if (sx_cas_acq_rel(&block->state, &seen, (seen & ~(uint64_t)7) | SX_FREE))
            return 1;
    }
}

void sx_block_clear(sx_block_t *block, uint32_t slot) {
    SX_STEP();
    sx_and_seq_cst(&block->holders[slot >> 6], ~((uint64_t)1 << (slot & 63)));
    SX_STEP();
}

int sx_block_is(const sx_block_t *block, uint64_t birth) {
    uint64_t seen = sx_load_acquire(&((sx_block_t *)block)->state);
    return SX_STATE(seen) == SX_LIVE && SX_GEN(seen) == (birth & SX_GEN_MASK) && sx_load_relaxed(&block->birth) == birth;
}

int sx_block_hold(sx_block_t *block, uint32_t slot, uint64_t birth) {
    if (!sx_block_is(block, birth)) /* only saves work */
        return 0;
    SX_STEP();
    sx_or_acq_rel(&block->holders[slot >> 6], (uint64_t)1 << (slot & 63));
    SX_STEP();
    uint64_t seen = sx_add_acq_rel(&block->state, SX_EPOCH); /* bit first, then bump and look: the other order is unsound */
    SX_STEP();
    if (SX_STATE(seen) == SX_LIVE && SX_GEN(seen) == (birth & SX_GEN_MASK) && sx_load_relaxed(&block->birth) == birth)
        return 1;
    sx_block_clear(block, slot);
    return -1;
}

int sx_block_alloc(sx_block_t *block, uint32_t slot, uint64_t *birth) {
    uint64_t seen = sx_load_acquire(&block->state);
    if (SX_STATE(seen) != SX_IDLE)
        return 0;
    uint64_t born = sx_load_relaxed(&block->birth) + 1;
    SX_STEP();
    sx_or_acq_rel(&block->holders[slot >> 6], (uint64_t)1 << (slot & 63));
    SX_STEP();
    sx_store_relaxed(&block->birth, born); /* relaxed: the CAS below releases it */
    SX_STEP();
    while (SX_STATE(seen) == SX_IDLE) { /* one with a stale name may move the epoch at any time */
        uint64_t live = (seen & ~(SX_EPOCH - 1)) | (born & SX_GEN_MASK) << SX_GEN_SHIFT | SX_LIVE;
        if (sx_cas_acq_rel(&block->state, &seen, live + SX_EPOCH)) {
            *birth = born;
            return 1;
        }
    }
    sx_block_clear(block, slot);
    return 0;
}

/* state -> next, gen as given, whatever the epoch does meanwhile */
static int change(sx_block_t *block, unsigned from, unsigned to, uint64_t gen) {
    uint64_t seen = sx_load_acquire(&block->state);
    while (SX_STATE(seen) == from) {
        SX_STEP();
        if (sx_cas_acq_rel(&block->state, &seen, (seen & ~(SX_EPOCH - 1)) | gen << SX_GEN_SHIFT | to))
            return 1;
    }
    return 0;
}

int sx_block_take_back(sx_block_t *block) {
    return change(block, SX_FREE, SX_IDLE, sx_load_relaxed(&block->birth) & SX_GEN_MASK);
}

int sx_block_begin_trim(sx_block_t *block, uint32_t slot) {
    return change(block, SX_FREE, SX_TRIM, slot);
}

void sx_block_end_trim(sx_block_t *block) {
    change(block, SX_TRIM, SX_FREE, sx_load_relaxed(&block->birth) & SX_GEN_MASK);
}
