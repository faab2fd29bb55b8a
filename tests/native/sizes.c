/* sizes.c - what an allocation promises: alignment, little waste, zeros, a limit that is kept, and the way back from an address. */
#include "harness.h"

enum { EXTENTS = 24 };

static sx_heap_t heap;

static void blocks_are_aligned_and_waste_little(void) {
    for (int i = 0; i < 400; i++) {
        uint64_t bytes = i < 40 ? (uint64_t)i * 64 : (uint64_t)1 << (6 + rnd(20));
        bytes += rnd(3) ? rnd((uint32_t)bytes + 1) : 0;
        sx_name_t name = alloc(&heap, bytes);
        uint64_t size = sx_heap_size(&heap, name.block);
        CHECK(size >= bytes && sx_heap_bytes(&heap, name.block) == bytes);
        if (bytes >= 65536)
            CHECK(size <= bytes + bytes * 7 / 100, "%llu bytes take %llu", (unsigned long long)bytes, (unsigned long long)size);
        CHECK((uintptr_t)sx_heap_start(&heap, name.block) % 64 == 0);
        sx_heap_release(&heap, name.block);
    }
    expect_quiet(&heap, 0);
}

static void an_array_may_span_many_extents(void) {
    for (uint64_t extents = 1; extents <= 5; extents++)
        for (int less = 0; less < 2; less++) {
            uint64_t bytes = extents * SX_EXTENT_BYTES - (uint64_t)less * 1000;
            sx_name_t name = alloc(&heap, bytes), found;
            char *start = sx_heap_start(&heap, name.block);
            paint(start, bytes, pattern_of(name));
            sx_name_t next = alloc(&heap, SX_EXTENT_BYTES);
            memset(sx_heap_start(&heap, next.block), 0, SX_EXTENT_BYTES);
            CHECK(is_painted(start, bytes, pattern_of(name)));
            for (uint64_t at = 0; at < bytes; at += SX_EXTENT_BYTES / 3)
                CHECK(sx_heap_find(&heap, start + at, start + bytes, &found) && found.block == name.block && found.birth == name.birth);
            CHECK(!sx_heap_find(&heap, start, start + bytes + 1000 + 512, &found), "past the end");
            sx_heap_release(&heap, name.block);
            CHECK(!sx_heap_find(&heap, start, start + 1, &found), "nobody holds it");
            sx_heap_release(&heap, next.block);
        }
    expect_quiet(&heap, 0);
}

static void too_much_is_refused(void) {
    sx_name_t name;
    char *start;
    uint64_t sizes[] = {EXTENTS * SX_EXTENT_BYTES + 1, (uint64_t)1 << 50, UINT64_MAX, UINT64_MAX - 511, UINT64_MAX / 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(sx_heap_alloc(&heap, sizes[i], 0, &name, &start) == -ENOMEM);
    sx_name_t small = alloc(&heap, 10); /* keeps one extent: the rest is too little for all */
    CHECK(sx_heap_alloc(&heap, EXTENTS * SX_EXTENT_BYTES, 0, &name, &start) == -ENOMEM);
    sx_heap_release(&heap, small.block);
    expect_quiet(&heap, 0);
}

static void empty_arrays_are_blocks_too(void) {
    sx_name_t a = alloc(&heap, 0), b = alloc(&heap, 0), found;
    char *start = sx_heap_start(&heap, a.block);
    CHECK(a.block != b.block && start != sx_heap_start(&heap, b.block) && sx_heap_bytes(&heap, a.block) == 0);
    CHECK(sx_heap_find(&heap, start, start, &found) == 1 && found.block == a.block);
    sx_heap_release(&heap, a.block);
    sx_heap_release(&heap, b.block);
    expect_quiet(&heap, 0);
}

static void recycled_memory_is_zero_if_so_asked(void) {
    for (int i = 0; i < 300; i++) {
        sx_name_t names[4];
        char *start;
        for (int k = 0; k < 4; k++) {
            uint64_t bytes = rnd(10) == 0 ? rnd(9 << 20) : rnd(20000);
            int zero = rnd(2) == 0;
            CHECK(sx_heap_alloc(&heap, bytes, zero, &names[k], &start) == 0);
            for (uint64_t at = 0; zero && at < bytes; at++)
                CHECK(start[at] == 0, "byte %llu of %llu", (unsigned long long)at, (unsigned long long)bytes);
            memset(start, 0xff, sx_heap_size(&heap, names[k].block));
        }
        for (int k = 0; k < 4; k++)
            sx_heap_release(&heap, names[k].block);
        if (rnd(10) == 0)
            sx_heap_trim(&heap);
    }
    expect_quiet(&heap, 0);
}

/* ---- the limit ------------------------------------------------------------------------------------------------------------------ */

static void set_limit(int64_t more) {
    sx_store_relaxed(&heap.header->bytes_limit, (uint64_t)((int64_t)sx_segment_resident(&heap.segment) + more));
}

static void a_limit_is_kept_and_the_heap_recovers(void) {
    sx_name_t held[64], name;
    char *start;
    int count = 0, code = 0;
    uint64_t limit = sx_load_relaxed(&heap.header->bytes_limit);
    sx_heap_trim(&heap);
    set_limit(20 << 20);
    while (count < 64 && (code = sx_heap_alloc(&heap, 3 << 20, 0, &held[count], &start)) == 0) {
        memset(start, 5, 3 << 20);
        count++;
    }
    CHECK(code == -ENOMEM && count >= 4 && count <= 8, "%d arrays of 3 MiB in 20 MiB", count);
    CHECK(sx_segment_resident(&heap.segment) <= sx_load_relaxed(&heap.header->bytes_limit));
    CHECK(sx_heap_alloc(&heap, 2 * SX_EXTENT_BYTES, 1, &name, &start) == -ENOMEM);
    CHECK(sx_heap_alloc(&heap, SX_EXTENT_BYTES / 2, 0, &name, &start) == -ENOMEM);
    const char *wrong = sx_heap_check(&heap, 1);
    CHECK(!wrong && living(&heap) == (uint64_t)count, "%s", wrong ? wrong : "blocks");
    check_marks(&heap);
    for (int i = 0; i < count; i++) {
        start = sx_heap_start(&heap, held[i].block);
        for (uint64_t at = 0; at < 3 << 20; at += 4096)
            CHECK(start[at] == 5);
        sx_heap_release(&heap, held[i].block);
    }
    CHECK(sx_heap_alloc(&heap, 12 << 20, 1, &name, &start) == 0, "what was freed can be used again");
    for (uint64_t at = 0; at < 12 << 20; at++)
        CHECK(start[at] == 0);
    sx_heap_release(&heap, name.block);
    sx_store_relaxed(&heap.header->bytes_limit, limit);
    expect_quiet(&heap, 0);
    expect_usable(&heap);
}

/* A page that could not be had is asked for again: a second try does not find it had. */
static void a_page_that_was_refused_is_not_handed_out(void) {
    static const uint64_t sizes[] = {100, 4096, 3 << 20, (2 << 20) + 5};
    uint64_t limit = sx_load_relaxed(&heap.header->bytes_limit);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sx_name_t name;
        char *start;
        sx_heap_trim(&heap);
        set_limit(0);
        for (int tries = 0; tries < 3; tries++)
            CHECK(sx_heap_alloc(&heap, sizes[i], 0, &name, &start) == -ENOMEM, "size %llu, try %d", (unsigned long long)sizes[i], tries);
        sx_store_relaxed(&heap.header->bytes_limit, limit);
        uint64_t before = sx_segment_resident(&heap.segment);
        CHECK(sx_heap_alloc(&heap, sizes[i], 1, &name, &start) == 0 && is_painted(start, sizes[i], 0));
        CHECK(sx_segment_resident(&heap.segment) >= before + (sizes[i] + SX_PAGE_BYTES - 1) / SX_PAGE_BYTES * SX_PAGE_BYTES,
              "it is backed before it is written");
        sx_heap_release(&heap, name.block);
    }
    expect_quiet(&heap, 0);
}

/* Writing to a page without memory behind it may end in SIGBUS. */
static int is_backed(sx_name_t name) {
    uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE), from = (uint64_t)(sx_heap_start(&heap, name.block) - heap.segment.base) / small * small;
    uint64_t to = (uint64_t)(sx_heap_start(&heap, name.block) - heap.segment.base) + sx_heap_size(&heap, name.block);
    for (unsigned char is; from < to; from += small)
        if (mincore(heap.segment.base + from, small, &is) || !(is & 1))
            return 0;
    return 1;
}

static void what_is_handed_out_is_backed_whoever_was_killed(void) {
    int killed = 1;
    for (uint64_t at = 1; killed; at++) {
        uint32_t slot = sx_slot_reserve(&heap, 1);
        sx_heap_trim(&heap);
        sx_name_t own = alloc(&heap, SX_EXTENT_BYTES / 2), other = alloc(&heap, SX_EXTENT_BYTES / 2); /* no room in its extent */
        pid_t pid = spawn();
        if (!pid) {
            sx_heap_t mine;
            join(&mine, &heap, slot);
            kill_at = at;
            on_step = kill_at_step;
            sx_name_t name = alloc(&mine, 5 << 20);
            sx_heap_release(&mine, name.block);
            sx_heap_trim(&mine);
            _exit(0);
        }
        int status = status_of(pid);
        killed = WIFSIGNALED(status);
        CHECK(killed || WEXITSTATUS(status) == 0);
        CHECK(sx_slot_reap(&heap, slot) == 1);
        sx_name_t name = alloc(&heap, 5 << 20);
        CHECK(is_backed(own) && is_backed(other));
        CHECK(is_backed(name), "killed at step %llu", (unsigned long long)at);
        sx_heap_release(&heap, name.block);
        sx_heap_release(&heap, own.block);
        sx_heap_release(&heap, other.block);
    }
    expect_quiet(&heap, 0);
}

/* Two who ask for the last page at once: one gets it, whatever the other does in between. */
static sx_heap_t second;
static int second_got;
static uint64_t second_at;
static sx_name_t seconds_name;

static void second_asks(void) {
    char *start;
    if (++steps != second_at)
        return;
    on_step = NULL;
    second_got = sx_heap_alloc(&second, 3 << 20, 0, &seconds_name, &start) == 0;
}

static void two_at_the_bound_do_not_pass_it(void) {
    uint64_t limit = sx_load_relaxed(&heap.header->bytes_limit), one_by_one = 0;
    int reached = 1;
    join(&second, &heap, 0);
    sx_name_t mine = alloc(&heap, 5), others = alloc(&second, 5); /* each has an extent, and tables */
    for (second_at = 1; reached; second_at++) {
        sx_name_t name;
        char *start;
        sx_heap_trim(&heap);
        sx_heap_trim(&second);
        set_limit(SX_PAGE_BYTES + 4096);
        steps = 0;
        second_got = 0;
        on_step = second_asks;
        int got = sx_heap_alloc(&heap, 3 << 20, 0, &name, &start) == 0;
        reached = !on_step;
        on_step = NULL;
        CHECK(sx_segment_resident(&heap.segment) <= sx_load_relaxed(&heap.header->bytes_limit), "step %llu",
              (unsigned long long)second_at);
        CHECK(!(got && second_got), "step %llu", (unsigned long long)second_at);
        one_by_one += second_got;
        if (second_got)
            sx_heap_release(&second, seconds_name.block);
        if (got)
            sx_heap_release(&heap, name.block);
    }
    CHECK(one_by_one > 0, "of %llu", (unsigned long long)second_at);
    sx_heap_release(&heap, mine.block);
    sx_heap_release(&second, others.block);
    sx_store_relaxed(&heap.header->bytes_limit, limit);
    guard(&heap, second.me->slot);
    CHECK(sx_slot_reap(&heap, second.me->slot) == 1);
    expect_quiet(&heap, 0);
}

static void other_processes_make_room_when_asked(void) {
    sx_heap_t other;
    sx_name_t name;
    char *start;
    uint64_t limit = sx_load_relaxed(&heap.header->bytes_limit);
    join(&other, &heap, 0);
    sx_heap_trim(&heap);
    sx_heap_trim(&other);
    sx_name_t others = alloc(&other, 15 << 20);
    set_limit(1 << 20);
    CHECK(sx_heap_alloc(&heap, 15 << 20, 0, &name, &start) == -ENOMEM);
    sx_heap_release(&other, others.block);
    CHECK(sx_heap_alloc(&heap, 15 << 20, 0, &name, &start) == -ENOMEM, "the other has the pages, and has not seen the request");
    sx_heap_answer_trim(&other);
    CHECK(sx_heap_alloc(&heap, 10 << 20, 0, &name, &start) == 0);
    sx_heap_release(&heap, name.block);
    sx_store_relaxed(&heap.header->bytes_limit, limit);
    guard(&heap, other.me->slot);
    CHECK(sx_slot_reap(&heap, other.me->slot) == 1);
    expect_quiet(&heap, 0);
}

/* ---- from an address to its block --------------------------------------------------------------------------------------------------- */

static void every_address_finds_its_block(void) {
    enum { BLOCKS = 400 };
    sx_name_t names[BLOCKS], found;
    for (int i = 0; i < BLOCKS; i++)
        names[i] = alloc(&heap, rnd(20) ? rnd(4000) : rnd(400000));
    for (int round = 0; round < 2000; round++) {
        int i = (int)rnd(BLOCKS);
        if (round % 3 == 0) {
            sx_heap_release(&heap, names[i].block);
            names[i] = alloc(&heap, rnd(20) ? rnd(4000) : rnd(400000));
        }
        char *start = sx_heap_start(&heap, names[i].block);
        uint64_t bytes = sx_heap_bytes(&heap, names[i].block), at = bytes ? rnd((uint32_t)bytes) : 0;
        CHECK(sx_heap_find(&heap, start + at, start + bytes, &found) == 1);
        CHECK(found.block == names[i].block && found.birth == names[i].birth);
        CHECK(!sx_heap_find(&heap, start + at, start + sx_heap_size(&heap, names[i].block) + 1, &found));
    }
    char outside;
    CHECK(!sx_heap_has(&heap, &outside) && !sx_heap_find(&heap, &outside, &outside + 1, &found));
    CHECK(!sx_heap_has(&heap, heap.data - 1) && !sx_heap_has(&heap, heap.data + EXTENTS * SX_EXTENT_BYTES));
    CHECK(!sx_heap_find(&heap, heap.data + (EXTENTS - 1) * SX_EXTENT_BYTES, heap.data + (EXTENTS - 1) * SX_EXTENT_BYTES + 1, &found));
    for (int i = 0; i < BLOCKS; i++)
        sx_heap_release(&heap, names[i].block);
    expect_quiet(&heap, 0);
}

/* An allocation that fails after its mark was set. The descriptor is made to refuse. */
static void an_allocation_that_failed_leaves_no_mark(void) {
    sx_name_t pad = alloc(&heap, 512), name, found;
    char *start;
    sx_name_t probe = alloc(&heap, 512);
    sx_block_t *next = block_of(&heap, probe);
    sx_heap_release(&heap, probe.block); /* idle: the next allocation takes it */
    uint64_t idle = sx_load_acquire(&next->state);
    CHECK(SX_STATE(idle) == SX_IDLE);
    sx_store_release(&next->state, idle | SX_TRIM);
    CHECK(sx_heap_alloc(&heap, 1 << 20, 0, &name, &start) == -EIO);
    sx_store_release(&next->state, idle);
    check_marks(&heap);
    CHECK(sx_heap_alloc(&heap, 3 << 20, 0, &name, &start) == 0);
    for (uint64_t at = 0; at < 3 << 20; at += 512)
        CHECK(sx_heap_find(&heap, start + at, start + at + 1, &found) == 1 && found.block == name.block);
    sx_heap_release(&heap, name.block);
    sx_heap_release(&heap, pad.block);
    expect_quiet(&heap, 0);
}

static void garbage_names_are_stale(void) {
    sx_name_t x = alloc(&heap, 100);
    for (int i = 0; i < 3000; i++) {
        sx_name_t name = {rnd(4), rnd(2) ? rnd(EXTENTS * SX_EXTENT_BLOCKS) : (uint32_t)rnd(UINT32_MAX)};
        if (name.block == x.block && name.birth == x.birth)
            continue;
        CHECK(sx_heap_hold(&heap, name) == -ESTALE);
    }
    sx_name_t next_life = {x.birth + 1, x.block}, same_gen = {x.birth + ((uint64_t)1 << 28), x.block};
    CHECK(sx_heap_hold(&heap, next_life) == -ESTALE && sx_heap_hold(&heap, same_gen) == -ESTALE);
    sx_heap_release(&heap, x.block);
    CHECK(sx_heap_hold(&heap, x) == -ESTALE && sx_heap_hold(&heap, same_gen) == -ESTALE);
    expect_quiet(&heap, 0);
}

static void many_small_blocks_fill_an_extent_to_the_last_granule(void) {
    static sx_name_t names[SX_EXTENT_GRANULES + 2];
    uint64_t limit = sx_load_relaxed(&heap.header->bytes_limit);
    for (uint32_t i = 0; i < SX_EXTENT_GRANULES + 2; i++)
        names[i] = alloc(&heap, 1 + rnd(512));
    CHECK(names[0].block / SX_EXTENT_BLOCKS == names[SX_EXTENT_GRANULES - 1].block / SX_EXTENT_BLOCKS);
    CHECK(names[SX_EXTENT_GRANULES].block / SX_EXTENT_BLOCKS != names[0].block / SX_EXTENT_BLOCKS);
    const char *wrong = sx_heap_check(&heap, 1);
    CHECK(!wrong, "%s", wrong);
    for (uint32_t i = 0; i < SX_EXTENT_GRANULES + 2; i++) { /* in any order */
        uint32_t other = rnd(SX_EXTENT_GRANULES + 2);
        sx_name_t name = names[i];
        names[i] = names[other];
        names[other] = name;
    }
    for (uint32_t i = 0; i < SX_EXTENT_GRANULES + 2; i++)
        sx_heap_release(&heap, names[i].block);
    sx_store_relaxed(&heap.header->bytes_limit, limit);
    expect_quiet(&heap, 0);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    expect_quiet(&heap, 0);
    blocks_are_aligned_and_waste_little();
    an_array_may_span_many_extents();
    too_much_is_refused();
    empty_arrays_are_blocks_too();
    an_allocation_that_failed_leaves_no_mark();
    a_limit_is_kept_and_the_heap_recovers();
    a_page_that_was_refused_is_not_handed_out();
    what_is_handed_out_is_backed_whoever_was_killed();
    two_at_the_bound_do_not_pass_it();
    other_processes_make_room_when_asked();
    every_address_finds_its_block();
    garbage_names_are_stale();
    many_small_blocks_fill_an_extent_to_the_last_granule();
    do
        recycled_memory_is_zero_if_so_asked();
    while (time_left());
    return 0;
}
