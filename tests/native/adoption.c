/* adoption.c - what a dead process owned goes on: its live blocks, its free memory; and pages that are trimmed while others
 * allocate them. */
#include "harness.h"

enum { EXTENTS = 64, BLOCKS = 60 };

static sx_heap_t heap;

typedef struct {
    sx_name_t name;
    uint64_t bytes;
} made_t;

static uint64_t some_bytes(int i) {
    if (i < 3)
        return SX_EXTENT_BYTES / 2 + 1 + (uint64_t)i * SX_EXTENT_BYTES;
    return rnd(20) ? rnd(30000) + 8 : rnd(8 << 20) + 8;
}

static void live_blocks_of_a_dead_owner_stay_and_are_freed_by_others(void) {
    made_t *made = shared(BLOCKS * sizeof *made);
    sx_heap_t other;
    uint32_t owner = sx_slot_reserve(&heap, 1);
    join(&other, &heap, 0);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        join(&mine, &heap, owner);
        for (int i = 0; i < BLOCKS; i++) {
            made[i].bytes = some_bytes(i);
            made[i].name = alloc(&mine, made[i].bytes);
            paint(sx_heap_start(&mine, made[i].name.block), made[i].bytes, pattern_of(made[i].name));
            sx_name_t gone = alloc(&mine, rnd(9000)); /* holes in between */
            sx_heap_release(&mine, gone.block);
        }
        _exit(0);
    }
    expect_clean_exit(pid);
    /* the holders come after its death and before the reaping: names that are on their way */
    int held[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        if ((held[i] = (int)rnd(3)))
            CHECK(sx_heap_hold(held[i] == 1 ? &heap : &other, made[i].name) == 0);
    CHECK(sx_slot_reap(&heap, owner) == 1);
    uint32_t living_extents = 0;
    for (uint32_t e = 0; e < EXTENTS; e++) {
        uint64_t word = sx_load_acquire(&heap.owners[e]);
        CHECK(SX_EXTENT_KIND(word) == SX_EXTENT_TAIL || !word || sx_extent_is_mine(&heap, e), "the dead one owns extent %u", e);
        living_extents += word != 0;
    }
    const char *wrong = sx_heap_check(&heap, 1);
    CHECK(!wrong, "%s", wrong);
    check_marks(&heap);
    /* allocation goes on in the adopted extents, around what lives there */
    sx_name_t mine[200];
    for (int i = 0; i < 200; i++) {
        mine[i] = alloc(&heap, 3000);
        memset(sx_heap_start(&heap, mine[i].block), 0xaa, 3000);
    }
    for (int i = 0; i < BLOCKS; i++) {
        sx_heap_t *holder = held[i] == 1 ? &heap : &other;
        CHECK(is_there(&heap, made[i].name) == (held[i] != 0));
        if (!held[i])
            continue;
        CHECK(is_painted(sx_heap_start(holder, made[i].name.block), made[i].bytes, pattern_of(made[i].name)), "block %d", i);
        sx_name_t found;
        char *start = sx_heap_start(holder, made[i].name.block);
        CHECK(sx_heap_find(holder, start + made[i].bytes / 2, start + made[i].bytes, &found) == 1);
        CHECK(found.block == made[i].name.block && found.birth == made[i].name.birth);
        sx_heap_release(holder, made[i].name.block);
    }
    for (int i = 0; i < 200; i++)
        sx_heap_release(&heap, mine[i].block);
    sx_heap_release(&heap, alloc(&heap, 10).block); /* takes back what `other` released */
    expect_quiet(&heap, 0);
    uint32_t extents = 0;
    for (uint32_t e = 0; e < EXTENTS; e++)
        extents += sx_load_acquire(&heap.owners[e]) != 0;
    CHECK(extents <= 1, "%u extents are kept for nothing", extents);
    guard(&heap, other.me->slot);
    CHECK(sx_slot_reap(&heap, other.me->slot) == 1);
    munmap(made, BLOCKS * sizeof *made);
    munmap(other.me, 4096);
    sx_segment_close(&other.segment);
}

/* ---- trim against allocation ------------------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic uint64_t names[8];
    _Atomic uint64_t allocs, trims, pages;
} shared_t;

static void allocate_zeroed(sx_heap_t *mine, shared_t *common) {
    made_t held[6];
    int count = 0;
    for (;;) {
        if (count == 6 || (count && rnd(2))) {
            int i = (int)rnd((uint32_t)count);
            char *start = sx_heap_start(mine, held[i].name.block);
            CHECK(is_painted(start, held[i].bytes, pattern_of(held[i].name)), "pages of a live block were removed");
            if (rnd(2)) /* another may hold it, and free it: then its owner takes it back */
                atomic_store(&common->names[rnd(8)], held[i].name.birth << 32 | held[i].name.block);
            sx_heap_release(mine, held[i].name.block);
            held[i] = held[--count];
        } else {
            char *start;
            made_t *new = &held[count];
            new->bytes = rnd(30) == 0 ? SX_EXTENT_BYTES / 2 + rnd(SX_EXTENT_BYTES) : rnd(4) ? 1 << 20 | rnd(5 << 20) : rnd(30000);
            int code = sx_heap_alloc(mine, new->bytes, 1, &new->name, &start);
            if (code) {
                CHECK(code == -ENOMEM, "%d", code);
                continue;
            }
            CHECK(is_painted(start, new->bytes, 0), "not zero");
            paint(start, new->bytes, pattern_of(new->name));
            atomic_fetch_add(&common->allocs, 1);
            count++;
        }
        uint64_t word = atomic_load(&common->names[rnd(8)]);
        sx_name_t name = {word >> 32, (uint32_t)word};
        if (word && sx_heap_count(mine, name.block) == 0 && sx_heap_hold(mine, name) == 0) {
            CHECK(is_painted(sx_heap_start(mine, name.block), sx_heap_bytes(mine, name.block), pattern_of(name)), "wrong data");
            sx_heap_release(mine, name.block);
        }
    }
}

static void trimming_never_touches_what_lives(int kills) {
    enum { PROCESSES = 5 };
    shared_t *common = shared(sizeof *common);
    pid_t pids[PROCESSES];
    uint32_t slots[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        slots[i] = sx_slot_reserve(&heap, 1);
        pids[i] = 0;
    }
    do {
        for (int i = 0; i < PROCESSES; i++) {
            if (pids[i])
                continue;
            uint64_t number = rnd(1 << 30);
            if (!(pids[i] = spawn())) {
                sx_heap_t mine;
                start_random(number);
                on_step = yield_at_steps;
                join(&mine, &heap, slots[i]);
                if (i >= 3)
                    for (;;) {
                        sx_heap_trim(&mine);
                        atomic_fetch_add(&common->trims, 1);
                        if (rnd(4) == 0)
                            sched_yield();
                    }
                allocate_zeroed(&mine, common);
            }
        }
        struct timespec nap = {0, 10000000};
        nanosleep(&nap, NULL);
        int i = (int)rnd(PROCESSES);
        if (kills) {
            kill_and_wait(pids[i]);
            CHECK(sx_slot_reap(&heap, slots[i]) == 1 && sx_slot_reserve(&heap, 1) == slots[i]);
            pids[i] = 0;
        }
        for (int j = 0; j < PROCESSES; j++)
            CHECK(!pids[j] || waitpid(pids[j], NULL, WNOHANG) == 0, "process %d has ended", j);
    } while (time_left() || common->allocs <= 10 || common->trims <= 2); /* however slow the machine is */
    for (int i = 0; i < PROCESSES; i++) {
        if (pids[i])
            kill_and_wait(pids[i]);
        CHECK(sx_slot_reap(&heap, slots[i]) == 1);
    }
    expect_quiet(&heap, 0);
    printf("%llu allocs, %llu trims\n", (unsigned long long)common->allocs, (unsigned long long)common->trims);
}

static void trim_gives_the_memory_back(void) {
    sx_heap_t other;
    join(&other, &heap, 0);
    sx_heap_trim(&heap);
    uint64_t before = sx_segment_resident(&heap.segment);
    sx_name_t x = alloc(&other, 20 << 20), y = alloc(&other, 10 << 20), z = alloc(&other, 16);
    CHECK(sx_heap_hold(&heap, x) == 0 && sx_heap_hold(&heap, y) == 0);
    sx_heap_release(&other, x.block);
    sx_heap_release(&other, y.block);
    CHECK(sx_segment_resident(&heap.segment) >= before + (28 << 20));
    sx_heap_release(&heap, x.block); /* its owner does nothing: FREE, not taken back */
    sx_heap_release(&heap, y.block);
    sx_heap_trim(&heap);
    CHECK(sx_segment_resident(&heap.segment) <= before + (8 << 20), "%llu more than before",
          (unsigned long long)(sx_segment_resident(&heap.segment) - before));
    sx_heap_release(&other, z.block);
    guard(&heap, other.me->slot);
    CHECK(sx_slot_reap(&heap, other.me->slot) == 1);
    expect_quiet(&heap, 0);
}

/* Whether it was cut short. */
static int allocate_until(uint64_t bytes, uint64_t at) {
    uint32_t slot = sx_slot_reserve(&heap, 1);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t other;
        join(&other, &heap, slot);
        steps = 0;
        kill_at = at;
        on_step = kill_at_step;
        alloc(&other, bytes);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0, "status %x", status);
    CHECK(sx_slot_reap(&heap, slot) == 1);
    expect_quiet(&heap, 0);
    return WIFSIGNALED(status);
}

static void an_allocation_that_was_cut_short_leaves_no_mark_and_no_tail(void) {
    for (uint64_t at = 1; allocate_until(1000, at); at++)
        ;
    for (uint64_t at = 1; at <= 12; at++) /* of several extents: it is being claimed */
        allocate_until(2 * SX_EXTENT_BYTES + 5, at);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    trim_gives_the_memory_back();
    an_allocation_that_was_cut_short_leaves_no_mark_and_no_tail();
    double all = seconds;
    for (int i = 0; i < 5 || now() - began < all / 3; i++)
        live_blocks_of_a_dead_owner_stay_and_are_freed_by_others();
    seconds = now() - began + (all - (now() - began)) / 2;
    trimming_never_touches_what_lives(0);
    seconds = all;
    trimming_never_touches_what_lives(1);
    expect_usable(&heap);
    return 0;
}
