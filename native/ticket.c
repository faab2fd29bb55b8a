/* ticket.c - names for receivers that are not known; see ticket.h. */
#include "ticket.h"

#include <errno.h>

/* SYNC POINT ticket: the block is marked before the entry is open, the entry is open before the issuer's bit can be cleared. Who
 * scans has loaded the state word before the mark, and fails at its CAS; or after, and reads the entries after the bits. */
static void mark(sx_block_t *block) {
    uint64_t state = sx_load_acquire(&block->state);
    SX_STEP();
    while (!sx_cas_acq_rel(&block->state, &state, (state | SX_TICKETED) + SX_EPOCH))
        ;
}

int sx_ticket_issue(sx_heap_t *heap, uint32_t block, uint32_t *entry, uint32_t *seq) {
    if (!heap->me->slot)
        return -EPERM;
    mark(sx_block_of(heap, block));
    for (uint32_t t = 0; t < SX_TICKETS; t++) {
        uint64_t seen = sx_load_acquire(&heap->tickets[t]);
        if (seen & SX_TICKET_OPEN)
            continue;
        uint32_t high = sx_load_acquire(&heap->header->ticket_high);
        SX_STEP();
        while (high < t + 1 && !sx_cas_acq_rel(&heap->header->ticket_high, &high, t + 1))
            ;
        uint64_t mine = SX_TICKET_WORD(SX_TICKET_SEQ(seen) + 1, block);
        SX_STEP();
        if (!sx_cas_acq_rel(&heap->tickets[t], &seen, mine))
            continue;
        *entry = t;
        *seq = SX_TICKET_SEQ(mine);
        return 0;
    }
    return -ENOSPC;
}

int sx_ticket_claim(sx_heap_t *heap, uint32_t block, uint32_t entry, uint32_t seq) {
    uint64_t open = SX_TICKET_WORD(seq, block);
    if (entry >= SX_TICKETS)
        return 0;
    SX_STEP();
    return sx_cas_acq_rel(&heap->tickets[entry], &open, open & ~SX_TICKET_OPEN);
}

uint32_t sx_ticket_count(const sx_heap_t *heap) {
    uint32_t entries = sx_ticket_high(heap), open = 0;
    for (uint32_t t = 0; t < entries; t++)
        open += sx_load_relaxed(&heap->tickets[t]) & SX_TICKET_OPEN;
    return open;
}

void sx_ticket_drop_all(sx_heap_t *heap) {
    for (uint32_t t = 0; t < SX_TICKETS; t++) {
        uint64_t seen = sx_load_acquire(&heap->tickets[t]);
        SX_STEP();
        if (seen & SX_TICKET_OPEN)
            sx_cas_acq_rel(&heap->tickets[t], &seen, seen & ~SX_TICKET_OPEN);
    }
    sx_heap_sweep(heap);
}
