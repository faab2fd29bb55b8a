/* fuzz_heap.c - tables of the heap in which somebody has written: whatever is done with them then ends, and touches no byte outside
 * of the heap and of this process's own tables.
 *
 * An input is a program: writes into the tables, and operations of the heap.
 */
#include "fuzz.h"

enum { EXTENTS = 3, MOST_HELD = 16, MOST_STEPS = 200 };

static sx_heap_t heap, other;
static uint32_t held[MOST_HELD], held_count, other_slot;

static void tear_down(sx_heap_t *member) {
    for (uint32_t e = 0; e < EXTENTS; e++)
        if (member->runs.arenas[e])
            munmap(member->runs.arenas[e], sizeof(sx_arena_t));
    sx_runs_forget(&member->runs);
    sx_table_clear(&member->table);
    munmap(member->me, 4096);
}

/* Without asking the kernel for pages one by one, which would take most of the time. */
static void pretend_backed(void) {
    for (uint32_t e = 0; e < EXTENTS; e++)
        heap.extents[e].backed = heap.extents[e].populated = 0xffff;
}

static void keep(uint32_t block) {
    if (held_count < MOST_HELD)
        held[held_count++] = block;
    else
        sx_heap_release(&heap, block);
}

static void write_somewhere(input_t *input) {
    uint8_t where = take_byte(input), count = take_byte(input) % 65;
    uint32_t extent = where / 16 % EXTENTS, offset = take_two(input);
    char *bases[] = {(char *)heap.header,
                     (char *)heap.slots,
                     (char *)heap.tickets,
                     (char *)heap.owners,
                     (char *)heap.extents,
                     (char *)heap.marks[extent].heads,
                     (char *)heap.marks[extent].released,
                     (char *)heap.marks[extent].head_block,
                     (char *)&heap.blocks[extent * SX_EXTENT_BLOCKS],
                     (char *)&heap.blocks[extent * SX_EXTENT_BLOCKS] + 128,
                     (char *)&heap.blocks[extent * SX_EXTENT_BLOCKS] + offsetof(sx_block_t, run)};
    uint32_t sizes[] = {sizeof(sx_header_t), SX_SLOTS * sizeof(sx_slot_t), SX_TICKETS * 8, EXTENTS * 8, EXTENTS * sizeof(sx_extent_t),
                        SX_EXTENT_GRANULES / 8, SX_EXTENT_BLOCKS / 8, SX_EXTENT_GRANULES * 2, 4096, 4096, 16};
    uint32_t which = where % 16 % (sizeof sizes / sizeof *sizes), at = offset % sizes[which];
    take_bytes(input, bases[which] + at, count < sizes[which] - at ? count : sizes[which] - at);
}

static void use_place(uint32_t block) {
    sx_place_t place;
    if (sx_heap_place(&heap, block, &place))
        return;
    CHECK(place.start >= heap.data && place.start + place.size <= heap.data + EXTENTS * SX_EXTENT_BYTES && place.bytes <= place.size);
    read_all(place.start, place.size < 64 ? place.size : 64);
    read_all(place.start + place.size - 1, 1);
    CHECK(sx_heap_start(&heap, block) == place.start && sx_heap_size(&heap, block) == place.size);
}

static void other_joins_and_dies(input_t *input) {
    if (!other_slot) {
        uint32_t slot = sx_slot_reserve(&heap, 1);
        if (!slot)
            return;
        heap.slots[slot].word = SX_SLOT_WORD(1, heap.me->slot, heap.me->incarnation, SX_SLOT_RESERVED);
        join_at_same_addresses(&other, &heap, slot);
        other_slot = slot;
        for (int i = take_byte(input) % 4; i-- > 0;) {
            sx_name_t name;
            char *start;
            if (sx_heap_alloc(&other, take_number(input) % (SX_EXTENT_BYTES * 2), 0, &name, &start) == 0 && (i & 1))
                sx_heap_release(&other, name.block);
        }
        return;
    }
    tear_down(&other);
    sx_slot_reap(&heap, other_slot);
    other_slot = 0;
}

static void step(input_t *input) {
    sx_name_t name = {0, 0};
    char *start;
    uint32_t entry, seq;
    sx_heap_info_t info;
    switch (take_byte(input) % 18) {
    case 0:
    case 1:
    case 2:
    case 3:
        write_somewhere(input);
        break;
    case 4:
    case 5: {
        uint64_t bytes = take_number(input);
        if (sx_heap_alloc(&heap, bytes < SX_EXTENT_BYTES * EXTENTS ? bytes : 600, 0, &name, &start) == 0) {
            use_place(name.block);
            keep(name.block);
        }
        break;
    }
    case 6:
        name = (sx_name_t){take_number(input), (uint32_t)take_number(input)};
        if (sx_heap_hold(&heap, name) == 0)
            keep(name.block);
        break;
    case 7:
        if (held_count)
            sx_heap_release(&heap, held[--held_count]);
        break;
    case 8:
        use_place((uint32_t)take_number(input));
        break;
    case 9: {
        char *at = heap.data + take_number(input) % (EXTENTS * SX_EXTENT_BYTES);
        if (sx_heap_find(&heap, at, at + 1, &name))
            use_place(name.block);
        break;
    }
    case 10:
        sx_heap_sweep(&heap);
        break;
    case 11:
        sx_heap_trim(&heap);
        pretend_backed();
        break;
    case 12:
        sx_heap_info(&heap, &info);
        sx_heap_check(&heap, take_byte(input) & 1);
        break;
    case 13:
        sx_slot_reap_dead(&heap);
        break;
    case 14:
        other_joins_and_dies(input);
        break;
    case 15:
        if (held_count && sx_ticket_issue(&heap, held[held_count - 1], &entry, &seq) == 0)
            sx_ticket_claim(&heap, held[held_count - 1], entry + take_byte(input) % 2, seq);
        break;
    case 16:
        sx_heap_post(&heap, (sx_name_t){take_number(input), (uint32_t)take_number(input)});
        break;
    default:
        if (held_count)
            sx_heap_unpost(&heap, (uint32_t)take_number(input), held[held_count - 1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input_t input = {data, data + size};
    held_count = other_slot = 0;
    create(&heap, EXTENTS);
    pretend_backed();
    keep(alloc(&heap, 100).block);
    keep(alloc(&heap, 5000).block);
    for (int i = 0; i < MOST_STEPS && input.at < input.end; i++)
        step(&input);
    if (other_slot)
        tear_down(&other);
    tear_down(&heap);
    sx_segment_close(&heap.segment);
    return 0;
}
