/* board.c - see board.h. */
#include "board.h"

#include <string.h>

static sx_board_t *board_of(const sx_heap_t *heap, uint32_t slot) {
    return (sx_board_t *)&heap->slots[slot | 1];
}

void sx_board_introduce(sx_heap_t *heap, uint32_t slot, sx_name_t channel, sx_name_t hub) {
    sx_board_t *board = board_of(heap, slot);
    SX_STEP();
    sx_store_relaxed(&board->channel_birth, 0); /* or a reader could put the block of one with the birth of the other */
    SX_STEP();
    sx_store_release(&board->channel, channel.block);
    SX_STEP();
    sx_store_release(&board->hub, hub.block);
    SX_STEP();
    sx_store_release(&board->hub_birth, hub.birth);
    SX_STEP();
    sx_store_release(&board->channel_birth, channel.birth); /* SYNC POINT board: a reader that sees it sees the others */
}

void sx_board_waiting(sx_hub_t *hub, uint64_t count) {
    uint64_t before = sx_load_relaxed(&hub->waiting); /* this process alone writes it */
    SX_STEP();
    if (!before != !count)
        sx_store_relaxed(&hub->waiting_since, count ? sx_now() : 0);
    SX_STEP();
    sx_store_relaxed(&hub->waiting, count);
}

void sx_board_traffic(sx_heap_t *heap, uint64_t by_name, uint64_t copied) {
    uint32_t slot = heap->me->slot;
    if (!slot || heap->is_private)
        return;
    sx_board_t *board = board_of(heap, slot);
    SX_STEP();
    sx_store_relaxed(&board->bytes_by_name, by_name);
    SX_STEP();
    sx_store_relaxed(&board->bytes_copied, copied);
    SX_STEP();
    sx_store_release(&board->incarnation, heap->me->incarnation); /* what an earlier process has left there counts no more */
}

void sx_board_name_function(sx_channel_t *channel, uint64_t function, const char *name, uint64_t bytes) {
    sx_function_name_t *entry = &channel->names[function % SX_FUNCTION_NAMES];
    uint64_t text[SX_FUNCTION_NAME_BYTES / 8] = {0};
    memcpy(text, name, bytes < sizeof text ? bytes : sizeof text);
    SX_STEP();
    sx_store_release(&entry->number, 0);
    for (uint32_t i = 0; i < SX_FUNCTION_NAME_BYTES / 8; i++) {
        SX_STEP();
        sx_store_relaxed(&entry->text[i], text[i]);
    }
    SX_STEP();
    sx_store_release(&entry->number, function + 1);
}

/* ---- who looks ----------------------------------------------------------------------------------------------------------- */

/* A copy of `bytes` of a block that was made for just so many and lives under this birth. 1, or 0. */
static int copy_of(const sx_heap_t *heap, uint32_t block, uint64_t birth, void *to, uint64_t bytes) {
    sx_place_t place;
    if (!birth || !sx_heap_has_descriptor(heap, block))
        return 0;
    sx_block_t *of = sx_block_of(heap, block);
    if (SX_STATE(sx_load_acquire(&of->state)) != SX_LIVE || sx_load_acquire(&of->birth) != birth)
        return 0;
    if (sx_heap_place(heap, block, &place) || place.bytes != bytes)
        return 0;
    memcpy(to, place.start, bytes);
    return SX_STATE(sx_load_acquire(&of->state)) == SX_LIVE && sx_load_acquire(&of->birth) == birth;
}

/* Calls in a copy of a task ring that were neither begun nor taken back. Its records may be torn: then as far as they make sense. */
static uint64_t count_ahead(const sx_ring_t *ring) {
    uint64_t position = sx_load_relaxed(&ring->tail_position), head = sx_load_relaxed(&ring->head_position), count = 0;
    while (position < head && head - position <= SX_RING_BYTES) {
        uint64_t at = position % SX_RING_BYTES;
        const sx_record_t *record = (const sx_record_t *)(ring->data + at);
        if (at % 16 || record->bytes < 16 || record->bytes % 16 || at + record->bytes > SX_RING_BYTES)
            break;
        if (record->kind != SX_SKIP && record->bytes >= sizeof *record && record->call)
            count += sx_load_relaxed(&record->claim) == SX_READY;
        position += record->bytes;
    }
    return count;
}

int sx_board_worker(const sx_heap_t *heap, uint32_t slot, sx_channel_t *room, sx_worker_view_t *view) {
    const sx_board_t *board = board_of(heap, slot);
    const sx_slot_t *process = &heap->slots[slot];
    uint64_t word = sx_load_acquire(&process->word), guardian = sx_load_acquire(&process->guardian);
    sx_hub_t hub;
    memset(view, 0, sizeof *view);
    if (SX_SLOT_STATE(word) != SX_SLOT_OWNED && SX_SLOT_STATE(word) != SX_SLOT_RESERVED)
        return 0;
    uint64_t birth = sx_load_acquire(&board->channel_birth); /* SYNC POINT board */
    if (!copy_of(heap, sx_load_acquire(&board->channel), birth, room, sizeof *room) || room->worker_slot != slot)
        return 0;
    if (SX_SLOT_STATE(word) == SX_SLOT_OWNED)
        view->pid = SX_SLOT_PID(word);
    if (guardian & 1)
        view->parent = SX_SLOT_PID(sx_load_acquire(&heap->slots[(uint32_t)(guardian >> 4) % SX_SLOTS & ~1u].word));
    view->hub = sx_load_acquire(&board->hub);
    view->sleeps = sx_load_acquire(&process->waiting) != 0;
    view->ahead = count_ahead(&room->tasks);
    view->running = sx_load_relaxed(&room->tasks.running);
    view->begun = sx_load_relaxed(&room->tasks.begun);
    view->function = sx_load_relaxed(&room->tasks.function);
    sx_function_name_t *entry = &room->names[view->function % SX_FUNCTION_NAMES];
    if (sx_load_relaxed(&entry->number) == view->function + 1)
        for (uint32_t i = 0; i < SX_FUNCTION_NAME_BYTES / 8; i++) {
            uint64_t part = sx_load_relaxed(&entry->text[i]);
            memcpy(view->name + 8 * i, &part, 8);
        }
    if (copy_of(heap, view->hub, sx_load_acquire(&board->hub_birth), &hub, sizeof hub)) {
        view->waiting = sx_load_relaxed(&hub.waiting);
        view->since = sx_load_relaxed(&hub.waiting_since);
    }
    return 1;
}

uint32_t sx_board_counted(const sx_heap_t *heap, uint32_t slot, uint64_t *by_name, uint64_t *copied) {
    const sx_board_t *board = board_of(heap, slot);
    uint64_t word = sx_load_acquire(&heap->slots[slot].word);
    if (SX_SLOT_STATE(word) != SX_SLOT_OWNED || sx_load_acquire(&board->incarnation) != SX_SLOT_INCARNATION(word))
        return 0;
    *by_name = sx_load_relaxed(&board->bytes_by_name);
    *copied = sx_load_relaxed(&board->bytes_copied);
    return SX_SLOT_PID(word);
}
