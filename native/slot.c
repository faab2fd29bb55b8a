/* slot.c - slots: taken, kept, reaped; see slot.h. */
#define _GNU_SOURCE
#include "slot.h"

#include "futex.h"
#include "owner.h"
#include <errno.h>
#include <unistd.h>

static uint64_t word_for(const sx_heap_t *heap, uint32_t incarnation, unsigned state) {
    return SX_SLOT_WORD(incarnation, heap->me->slot, heap->me->incarnation, state);
}

static void raise_high(sx_heap_t *heap, uint32_t to) {
    uint32_t seen = sx_load_acquire(&heap->header->slot_high);
    SX_STEP();
    while (seen < to && !sx_cas_acq_rel(&heap->header->slot_high, &seen, to))
        ;
}

static void introduce(sx_heap_t *heap, uint32_t slot) {
    SX_STEP();
    sx_store_release(&heap->slots[slot].pid, (uint32_t)getpid());
    SX_STEP();
    sx_store_release(&heap->slots[slot].start_time, sx_process_start_time((uint32_t)getpid()));
    heap->me->incarnation = SX_SLOT_INCARNATION(sx_load_acquire(&heap->slots[slot].word));
    heap->me->slot = slot;
}

static uint32_t take_free(sx_heap_t *heap, unsigned state) {
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2) {
        uint64_t seen = sx_load_acquire(&heap->slots[slot].word);
        if (SX_SLOT_STATE(seen) != SX_SLOT_FREE)
            continue;
        raise_high(heap, slot + 2);
        SX_STEP();
        uint32_t incarnation = (SX_SLOT_INCARNATION(seen) + 1) & 0xffffff;
        uint64_t word = state == SX_SLOT_OWNED ? SX_SLOT_OWNED_BY(incarnation, getpid()) : word_for(heap, incarnation, state);
        if (sx_cas_acq_rel(&heap->slots[slot].word, &seen, word))
            return slot;
    }
    return 0;
}

int sx_slot_claim(sx_heap_t *heap, uint32_t reserved) {
    if (reserved) {
        uint64_t seen = sx_load_acquire(&heap->slots[reserved].word);
        uint64_t mine = SX_SLOT_OWNED_BY(SX_SLOT_INCARNATION(seen), getpid());
        SX_STEP();
        if (SX_SLOT_STATE(seen) != SX_SLOT_RESERVED || !sx_cas_acq_rel(&heap->slots[reserved].word, &seen, mine))
            return -EOWNERDEAD; /* who kept it for us is dead, and it was reaped */
        introduce(heap, reserved);
        return 0;
    }
    uint32_t slot = take_free(heap, SX_SLOT_OWNED);
    if (!slot && sx_slot_reap_dead(heap))
        slot = take_free(heap, SX_SLOT_OWNED);
    if (!slot)
        return -ENOSPC;
    introduce(heap, slot);
    return 0;
}

uint32_t sx_slot_reserve(sx_heap_t *heap, int guarded) {
    uint32_t slot = take_free(heap, SX_SLOT_RESERVED);
    if (!slot && sx_slot_reap_dead(heap))
        slot = take_free(heap, SX_SLOT_RESERVED);
    if (slot && guarded) {
        SX_STEP();
        sx_store_release(&heap->slots[slot].guardian,
                         (uint64_t)heap->me->incarnation << 24 | (uint64_t)heap->me->slot << 4 | 1);
    }
    return slot;
}

void sx_slot_ring(sx_slot_t *slot) {
    SX_STEP();
    sx_add_acq_rel(&slot->bell, 1);
    SX_STEP();
    sx_futex_wake(&slot->bell, 1);
}

void sx_slot_unguard(sx_heap_t *heap, uint32_t slot) {
    SX_STEP();
    sx_store_release(&heap->slots[slot].guardian, 0);
}

/* Is the process that had this slot under this incarnation gone for certain? */
static int is_gone(sx_heap_t *heap, uint32_t slot, uint32_t incarnation) {
    if (slot >= SX_SLOTS)
        return 1;
    uint64_t word = sx_load_acquire(&heap->slots[slot].word);
    uint64_t start_time = sx_load_acquire(&heap->slots[slot].start_time); /* 0: killed before it was stored, perhaps */
    if (SX_SLOT_STATE(word) != SX_SLOT_OWNED || SX_SLOT_INCARNATION(word) != incarnation)
        return SX_SLOT_STATE(word) != SX_SLOT_RESERVED || SX_SLOT_INCARNATION(word) != incarnation;
    return sx_process_is_dead(SX_SLOT_PID(word), start_time);
}

/* May this process reap a slot whose word is `word`, given that a guardian decides for itself? */
static int may_reap(sx_heap_t *heap, uint32_t slot, uint64_t word) {
    uint64_t guardian = sx_load_acquire(&heap->slots[slot].guardian);
    uint32_t by = (uint32_t)(guardian >> 4) & 0xfff, by_incarnation = (uint32_t)(guardian >> 24);
    uint32_t other = SX_SLOT_OTHER(word), other_incarnation = SX_SLOT_OTHER_INCARNATION(word);
    int mine = (guardian & 1) && by == heap->me->slot && by_incarnation == heap->me->incarnation;
    if ((guardian & 1) && !mine && !is_gone(heap, by, by_incarnation))
        return 0;
    switch (SX_SLOT_STATE(word)) {
    case SX_SLOT_OWNED:
        return mine || is_gone(heap, slot, SX_SLOT_INCARNATION(word));
    case SX_SLOT_RESERVED: /* kept by another for a child that never claimed it */
        return mine || (other == heap->me->slot && other_incarnation == heap->me->incarnation) ||
               is_gone(heap, other, other_incarnation);
    case SX_SLOT_REAPING: /* its reaper died over it; if that is this very process, another thread is at it */
        return is_gone(heap, other, other_incarnation);
    default:
        return 0;
    }
}

static void clear_bits(sx_heap_t *heap, uint32_t slot) {
    uint32_t high = sx_extent_high(heap), word = slot / 64;
    uint64_t both = (uint64_t)3 << (slot % 64);
    for (uint32_t e = 0; e < high; e++) {
        uint32_t blocks = sx_block_high(heap, e);
        for (uint32_t b = 0; b < blocks; b++) {
            sx_block_t *block = sx_block_of(heap, e * SX_EXTENT_BLOCKS + b);
            if (sx_load_acquire(&block->holders[word]) & both) {
                SX_STEP();
                sx_and_seq_cst(&block->holders[word], ~both);
            }
            uint64_t state = sx_load_acquire(&block->state);
            if (SX_STATE(state) == SX_TRIM && SX_GEN(state) == slot)
                sx_block_end_trim(block); /* its trimmer is the dead one */
        }
    }
}

/* Reaps a slot while its word is still `seen`: what was decided about a slot is void once anybody moved it on. */
static int reap_seen(sx_heap_t *heap, uint32_t slot, uint64_t seen) {
    uint32_t incarnation = SX_SLOT_INCARNATION(seen);
    if (!heap->me->slot || slot == heap->me->slot || !may_reap(heap, slot, seen))
        return 0;
    SX_STEP();
    if (!sx_cas_acq_rel(&heap->slots[slot].word, &seen, word_for(heap, incarnation, SX_SLOT_REAPING)))
        return 0;
    clear_bits(heap, slot);
    pthread_mutex_lock(&heap->mutex);
    sx_extent_adopt(heap, slot, incarnation);
    pthread_mutex_unlock(&heap->mutex);
    sx_heap_sweep(heap); /* every LIVE block: the dead one may have cleared its bit and not come to the scan */
    SX_STEP();
    sx_store_release(&heap->slots[slot].look, 0);
    SX_STEP();
    sx_store_release(&heap->slots[slot].providing, 0); /* it may have been killed while it was at it */
    SX_STEP();
    sx_store_release(&heap->slots[slot].guardian, 0);
    SX_STEP();
    sx_store_release(&heap->slots[slot].start_time, 0);
    SX_STEP();
    sx_store_release(&heap->slots[slot].pid, 0);
    SX_STEP();
    sx_store_release(&heap->slots[slot].word, SX_SLOT_WORD(incarnation, 0, 0, SX_SLOT_FREE));
    return 1;
}

int sx_slot_reap(sx_heap_t *heap, uint32_t slot) {
    return reap_seen(heap, slot, sx_load_acquire(&heap->slots[slot].word));
}

uint32_t sx_slot_reap_dead(sx_heap_t *heap) {
    uint32_t high = sx_load_acquire(&heap->header->slot_high), reaped = 0;
    for (uint32_t slot = 2; heap->me->slot && slot < high && slot < SX_SLOTS; slot += 2) {
        uint64_t word = sx_load_acquire(&heap->slots[slot].word);
        uint32_t other = SX_SLOT_OTHER(word), other_incarnation = SX_SLOT_OTHER_INCARNATION(word);
        uint64_t guardian = sx_load_acquire(&heap->slots[slot].guardian);
        if (slot == heap->me->slot || (guardian & 1 && (guardian >> 4 & 0xfff) == heap->me->slot))
            continue; /* my own workers: my pool knows when they are dead, and has their answers */
        unsigned state = SX_SLOT_STATE(word);
        if (state == SX_SLOT_RESERVED && other == heap->me->slot && other_incarnation == heap->me->incarnation)
            continue; /* a child that is being made: fork.c knows whether it lives */
        if (state == SX_SLOT_REAPING && other == heap->me->slot && other_incarnation == heap->me->incarnation)
            continue; /* another thread of this process is at it */
        SX_STEP(); /* another thread may reap it now, and keep it for a child of its own */
        reaped += (uint32_t)reap_seen(heap, slot, word);
    }
    return reaped;
}
