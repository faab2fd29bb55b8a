/* threads.c - the threads of one process, and several members of the heap in one process at the same addresses, so that a thread
 * sanitizer sees what the protocol promises: who reads data that another wrote, and who uses its memory again.
 */
#include "harness.h"

enum { EXTENTS = 40, THREADS = 5, BOARD = 6 };

static sx_heap_t heap;
static _Atomic int stop;
static double until;

/* `count` threads for each of the members. */
static void run_threads(void *(*work)(void *), sx_heap_t *member, int members, int count) {
    pthread_t threads[16];
    atomic_store(&stop, 0);
    for (int i = 0; i < members * count; i++)
        CHECK(pthread_create(&threads[i], NULL, work, &member[i / count]) == 0);
    while (now() < until) {
        struct timespec nap = {0, 1000000};
        nanosleep(&nap, NULL);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < members * count; i++)
        pthread_join(threads[i], NULL);
}

/* ---- one block, many threads: counts 0 <-> 1 and the bit ----------------------------------------------------------------------- */

static sx_name_t x;
static sx_heap_t other;
static _Atomic uint64_t holds;

static void *holds_and_releases(void *unused) {
    (void)unused;
    start_random((uint64_t)(uintptr_t)pthread_self());
    while (!atomic_load(&stop)) {
        CHECK(sx_heap_hold(&heap, x) == 0, "another member holds it all the time");
        atomic_fetch_add(&holds, 1);
        CHECK(has_bit(&heap, x, heap.me->slot), "held, and no bit");
        CHECK(sx_heap_count(&heap, x.block) >= 1);
        sx_name_t found;
        char *start = sx_heap_start(&heap, x.block);
        uint32_t at = rnd(3000);
        CHECK(sx_heap_find(&heap, start + at, start + at + rnd(3000 - at), &found) == 1);
        CHECK(found.block == x.block && found.birth == x.birth);
        if (rnd(3) == 0) {
            sx_heap_hold_again(&heap, x.block);
            sx_heap_release(&heap, x.block);
        }
        CHECK(has_bit(&heap, x, heap.me->slot), "held, and no bit");
        sx_heap_release(&heap, x.block);
    }
    return NULL;
}

static void one_block_held_by_many_threads_keeps_its_bit(double for_seconds) {
    until = now() + for_seconds;
    x = alloc(&other, 3000);
    run_threads(holds_and_releases, &heap, 1, THREADS);
    CHECK(sx_heap_count(&heap, x.block) == 0 && !has_bit(&heap, x, heap.me->slot) && is_there(&other, x));
    sx_heap_release(&other, x.block);
    CHECK(!is_there(&other, x));
    CHECK(atomic_load(&holds) > 100);
}

/* ---- many blocks, everything at once --------------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic uint64_t name; /* [birth:32 | block:32] */
} place_t;
static place_t board[BOARD];

static uint64_t packed(sx_name_t name) {
    return name.birth << 32 | name.block;
}

static void *shares(void *member) {
    sx_heap_t *mine = member;
    start_random((uint64_t)(uintptr_t)pthread_self());
    while (!atomic_load(&stop)) {
        sx_name_t held[4];
        int count = 0;
        for (int i = 0; i < 4; i++) {
            uint64_t word = rnd(2) ? atomic_load_explicit(&board[rnd(BOARD)].name, memory_order_acquire) : 0;
            sx_name_t name = {word >> 32, (uint32_t)word};
            if (word && sx_heap_hold(mine, name) == 0) {
                held[count++] = name;
                continue;
            }
            uint64_t bytes = rnd(200) == 0 ? SX_EXTENT_BYTES / 2 + rnd(100) : rnd(50) == 0 ? 300000 + rnd(3 << 20) : 16 + rnd(3000);
            int zero = rnd(4) == 0;
            char *start;
            int code = sx_heap_alloc(mine, bytes, zero, &name, &start);
            if (code) {
                CHECK(code == -ENOMEM, "%d", code);
                continue;
            }
            if (zero)
                CHECK(is_painted(start, bytes, 0), "not zero");
            paint(start, bytes, pattern_of(name));
            held[count++] = name;
            if (rnd(2))
                atomic_store_explicit(&board[rnd(BOARD)].name, packed(name), memory_order_release);
        }
        for (int i = 0; i < count; i++) {
            sx_name_t found;
            char *start = sx_heap_start(mine, held[i].block);
            uint64_t bytes = sx_heap_bytes(mine, held[i].block);
            CHECK(is_there(mine, held[i]) && has_bit(mine, held[i], mine->me->slot));
            CHECK(is_painted(start, bytes, pattern_of(held[i])), "wrong data");
            CHECK(sx_heap_find(mine, start + rnd((uint32_t)bytes), start + bytes, &found) == 1 && found.birth == held[i].birth);
            uint32_t entry, seq;
            if (rnd(8) == 0 && sx_ticket_issue(mine, held[i].block, &entry, &seq) == 0)
                CHECK(sx_ticket_claim(mine, held[i].block, entry, seq) == 1);
            sx_heap_release(mine, held[i].block);
        }
        if (rnd(200) == 0)
            sx_heap_trim(mine);
        if (rnd(200) == 0)
            sx_heap_sweep(mine);
        sx_heap_info_t info;
        if (rnd(400) == 0)
            sx_heap_info(mine, &info);
    }
    return NULL;
}

static void threads_of_one_member_share_blocks(double for_seconds) {
    until = now() + for_seconds;
    memset(board, 0, sizeof board);
    run_threads(shares, &heap, 1, THREADS);
    expect_quiet(&heap, 0);
}

static void members_at_the_same_addresses_share_blocks(double for_seconds) {
    enum { MEMBERS = 3 };
    static sx_heap_t members_of_it[MEMBERS];
    until = now() + for_seconds;
    memset(board, 0, sizeof board);
    for (int i = 0; i < MEMBERS; i++) {
        keep_slots(&heap, (uint32_t)(i + 1) * 64 + 2);
        join_at_same_addresses(&members_of_it[i], &heap, sx_slot_reserve(&heap, 1));
    }
    run_threads(shares, members_of_it, MEMBERS, 2);
    CHECK(living(&heap) == 0);
    for (int i = 0; i < MEMBERS; i++)
        CHECK(sx_slot_reap(&heap, members_of_it[i].me->slot) == 1);
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2)
        if (slot != other.me->slot)
            sx_slot_reap(&heap, slot);
    expect_quiet(&heap, 0);
}

/* ---- answers and tasks between threads ------------------------------------------------------------------------------------------- */

static sx_channel_t channel;
static sx_outbox_t outbox;
static sx_heap_t worker;
static _Atomic uint64_t answered, read_answers;
static _Atomic int go; /* no answer will come any more */

static void *answers(void *unused) {
    static char filler[SX_RING_BYTES];
    (void)unused;
    sx_name_t cached = alloc(&worker, 2000);
    paint(sx_heap_start(&worker, cached.block), 2000, pattern_of(cached));
    start_random(11);
    while (!atomic_load(&stop)) {
        sx_name_t name = rnd(3) ? alloc(&worker, 2000) : cached;
        if (packed(name) != packed(cached))
            paint(sx_heap_start(&worker, name.block), 2000, pattern_of(name));
        sx_posted_name_t posted[2] = {{name.birth, name.block, 0}, {cached.birth, cached.block, 0}};
        uint32_t count = packed(name) == packed(cached) ? 1 : 1 + rnd(2);
        sx_message_t message = {.name_count = count, .second_bytes = rnd(20) ? rnd(2000) : 10000, .second = filler};
        int code = sx_outbox_publish(&worker, &outbox, &channel.answers, &message, posted);
        CHECK(code == 0 || code == -EAGAIN, "%d", code);
        if (packed(name) != packed(cached))
            sx_heap_release(&worker, name.block);
        if (code == 0)
            atomic_fetch_add(&answered, 1);
        else
            sched_yield();
        if (rnd(16) == 0)
            sx_channel_wait(&worker, &channel, NULL, sx_channel_bell(&worker, &channel), 100000);
    }
    sx_heap_release(&worker, cached.block);
    return NULL;
}

static void *reads(void *unused) {
    (void)unused;
    while (!atomic_load(&go) || !sx_ring_is_empty(&channel.answers)) {
        sx_message_t message;
        int code = sx_ring_peek(&heap, &channel.answers, &message);
        CHECK(code >= 0);
        if (!code) {
            sched_yield();
            continue;
        }
        sx_posted_name_t names[2];
        uint32_t count = message.name_count;
        memcpy(names, message.names, count * sizeof *names);
        CHECK(sx_outbox_consume(&heap, &channel, &message) == 0, "a name in flight is stale");
        for (uint32_t i = 0; i < count; i++) {
            sx_name_t name = {names[i].birth, names[i].block};
            CHECK(is_there(&heap, name) && is_painted(sx_heap_start(&heap, name.block), 2000, pattern_of(name)));
            sx_heap_release(&heap, name.block);
        }
        if (message.flags & SX_SPILLED)
            sx_heap_release(&heap, message.spill.block);
        atomic_fetch_add(&read_answers, 1);
    }
    return NULL;
}

static void answers_are_read_by_another_thread(double for_seconds) {
    uint32_t slot = sx_slot_reserve(&heap, 1);
    join_at_same_addresses(&worker, &heap, slot);
    channel.worker_slot = slot;
    until = now() + for_seconds;
    pthread_t a, b;
    atomic_store(&stop, 0);
    CHECK(pthread_create(&a, NULL, answers, NULL) == 0 && pthread_create(&b, NULL, reads, NULL) == 0);
    while (now() < until) {
        struct timespec nap = {0, 1000000};
        nanosleep(&nap, NULL);
    }
    atomic_store(&stop, 1);
    pthread_join(a, NULL);
    atomic_store(&go, 1);
    pthread_join(b, NULL);
    sx_outbox_settle(&worker, &outbox, &channel.answers);
    CHECK(atomic_load(&answered) == atomic_load(&read_answers));
    CHECK(living(&heap) == 0);
    CHECK(sx_slot_reap(&heap, slot) == 1);
    expect_quiet(&heap, 0);
}

/* ---- two threads reap the slot of one dead worker ---------------------------------------------------------------------------------- */

static uint32_t dead_slot;
static _Atomic int reaped, ready;

static void *reaps(void *unused) {
    (void)unused;
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 2)
        ;
    atomic_fetch_add(&reaped, sx_slot_reap(&heap, dead_slot));
    return NULL;
}

static void a_dead_workers_slot_is_reaped_by_one_thread(double for_seconds) {
    for (until = now() + for_seconds; now() < until;) {
        sx_heap_t dead;
        pthread_t a, b;
        dead_slot = sx_slot_reserve(&heap, 1);
        join_at_same_addresses(&dead, &heap, dead_slot);
        for (int i = 0; i < 20; i++)
            alloc(&dead, 100);
        atomic_store(&reaped, 0);
        atomic_store(&ready, 0);
        CHECK(pthread_create(&a, NULL, reaps, NULL) == 0 && pthread_create(&b, NULL, reaps, NULL) == 0);
        pthread_join(a, NULL);
        pthread_join(b, NULL);
        CHECK(atomic_load(&reaped) == 1, "reaped %d times", atomic_load(&reaped));
        expect_quiet(&heap, 0);
        sx_table_clear(&dead.table);
        sx_runs_forget(&dead.runs);
        munmap(dead.me, 4096);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    join_at_same_addresses(&other, &heap, 0);
    one_block_held_by_many_threads_keeps_its_bit(seconds / 5);
    threads_of_one_member_share_blocks(seconds / 5);
    members_at_the_same_addresses_share_blocks(seconds / 5);
    answers_are_read_by_another_thread(seconds / 5);
    a_dead_workers_slot_is_reaped_by_one_thread(seconds / 5);
    expect_usable(&heap);
    return 0;
}
