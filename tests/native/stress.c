/* stress.c - several processes share blocks while a parent kills one every few milliseconds, reaps it and starts another.
 *
 * Each has its holder bit in a word of its own. They allocate, publish names on a board, hold names read there, look at the data
 * while they hold, and drop; a few names go with a ticket, read by exactly one, which may never be stale. When all are reaped no
 * block lives, no bit stands, and the invariants hold. Compiled with -DSX_FAULT_NO_EPOCH it must find wrong data.
 */
#include "harness.h"

enum { CHILDREN = 6, BOARD = 6, TICKETS = 4, MINE = 5, EXTENTS = 48 };

/* A name with a ticket. One process at a time works at a place: else a clearing parent takes away what another is about to put. */
typedef struct {
    _Atomic uint64_t word; /* [birth:32 | block:32], or 0: none lies here */
    _Atomic uint64_t ticket;
    _Atomic uint32_t worker; /* its slot + 1, or 0 */
} place_t;

typedef struct {
    _Atomic uint64_t board[BOARD]; /* [birth:32 | block:32] */
    place_t places[TICKETS];
    _Atomic uint64_t allocs, holds, stale, read, full;
} board_t;

typedef struct {
    sx_name_t name;
    uint64_t bytes;
} held_t;

static board_t *board;
static sx_heap_t heap;

static uint64_t packed(sx_name_t name) {
    return name.birth << 32 | name.block;
}

static sx_name_t unpacked(uint64_t word) {
    return (sx_name_t){word >> 32, (uint32_t)word};
}

static uint64_t some_bytes(void) {
    uint32_t kind = rnd(400);
    if (kind == 0)
        return SX_EXTENT_BYTES / 2 + 1 + rnd(SX_EXTENT_BYTES * 2);
    if (kind < 8)
        return rnd(4 << 20);
    return 8 + rnd(2000);
}

static void look_at(const sx_heap_t *mine, held_t held) {
    for (int i = 0; i < 3; i++) {
        CHECK(is_there(mine, held.name), "a block that is held is not there");
        CHECK(is_painted(sx_heap_start(mine, held.name.block), held.bytes, pattern_of(held.name)), "wrong data in a block that is held");
        CHECK(has_bit(mine, held.name, mine->me->slot), "another has cleared my bit");
        SX_STEP();
    }
}

static place_t *take_place(const sx_heap_t *mine) {
    place_t *place = &board->places[rnd(TICKETS)];
    uint32_t nobody = 0;
    return atomic_compare_exchange_strong(&place->worker, &nobody, mine->me->slot + 1) ? place : NULL;
}

static void leave_place(place_t *place) {
    atomic_store(&place->worker, 0);
}

static void leave_places_of(uint32_t dead) {
    for (int i = 0; i < TICKETS; i++)
        if (atomic_load(&board->places[i].worker) == dead + 1)
            leave_place(&board->places[i]);
}

static void publish(sx_heap_t *mine, held_t held) {
    uint32_t entry, seq;
    place_t *place;
    if (rnd(8)) {
        atomic_store(&board->board[rnd(BOARD)], packed(held.name));
        return;
    }
    if (!(place = take_place(mine)))
        return;
    if (!atomic_load(&place->word) && !sx_ticket_issue(mine, held.name.block, &entry, &seq)) {
        atomic_store(&place->ticket, (uint64_t)seq << 32 | entry);
        atomic_store(&place->word, packed(held.name));
    }
    leave_place(place);
}

/* Whoever is killed over it, has taken the word off first or not at all: then another reads it. */
static int read_ticket(sx_heap_t *mine, held_t *held) {
    place_t *place = take_place(mine);
    if (!place)
        return 0;
    uint64_t word = atomic_exchange(&place->word, 0), ticket = atomic_load(&place->ticket);
    if (word) {
        sx_name_t name = unpacked(word);
        int code = sx_heap_hold(mine, name);
        CHECK(code == 0, "a name with a ticket that nobody has read is stale: %d", code);
        CHECK(sx_ticket_claim(mine, name.block, (uint32_t)ticket, (uint32_t)(ticket >> 32)) == 1, "who reads first claims the ticket");
        CHECK(sx_ticket_claim(mine, name.block, (uint32_t)ticket, (uint32_t)(ticket >> 32)) == 0);
        atomic_fetch_add(&board->read, 1);
        *held = (held_t){name, sx_heap_bytes(mine, name.block)};
    }
    leave_place(place);
    return word != 0;
}

static void child(uint32_t slot, uint64_t number) {
    sx_heap_t mine;
    held_t held[MINE];
    uint32_t count = 0;
    start_random(number);
    on_step = yield_at_steps;
    join(&mine, &heap, slot);
    for (;;) {
        if (count == MINE || (count && rnd(3) == 0)) {
            uint32_t i = rnd(count);
            look_at(&mine, held[i]);
            if (rnd(2))
                publish(&mine, held[i]);
            sx_heap_release(&mine, held[i].name.block);
            held[i] = held[--count];
        } else if (rnd(3) == 0) {
            int zero = (int)rnd(2);
            held_t *new = &held[count];
            char *start;
            new->bytes = some_bytes();
            if (sx_heap_alloc(&mine, new->bytes, zero, &new->name, &start)) {
                atomic_fetch_add(&board->full, 1); /* all extents are taken: by arenas, or by the dead */
                continue;
            }
            if (zero)
                CHECK(is_painted(start, new->bytes, 0), "not zero");
            paint(start, new->bytes, pattern_of(new->name));
            atomic_fetch_add(&board->allocs, 1);
            count++;
            publish(&mine, *new);
        } else if (rnd(8) == 0) {
            count += (uint32_t)read_ticket(&mine, &held[count]);
        } else {
            uint64_t word = atomic_load(&board->board[rnd(BOARD)]);
            if (!word)
                continue;
            if (sx_heap_hold(&mine, unpacked(word))) {
                atomic_fetch_add(&board->stale, 1);
                continue;
            }
            held[count] = (held_t){unpacked(word), sx_heap_bytes(&mine, (uint32_t)word)};
            atomic_fetch_add(&board->holds, 1);
            look_at(&mine, held[count++]);
        }
        if (rnd(300) == 0)
            sx_heap_trim(&mine);
        if (rnd(300) == 0)
            sx_heap_sweep(&mine);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    uint32_t slot[CHILDREN];
    pid_t pid[CHILDREN];
    uint64_t kills = 0;
    board = shared(sizeof *board);
    create(&heap, EXTENTS);
    for (int c = 0; c < CHILDREN; c++) {
        if (c)
            keep_slots(&heap, (uint32_t)c * 64 + 2 * rnd(20));
        slot[c] = sx_slot_reserve(&heap, 1);
        CHECK(slot[c] / 64 == (uint32_t)c);
        if (!(pid[c] = spawn()))
            child(slot[c], (uint64_t)c + 1);
    }
    do {
        struct timespec nap = {0, 1000000 + (long)rnd(4000000)};
        nanosleep(&nap, NULL);
        int c = (int)rnd(CHILDREN);
        kill_and_wait(pid[c]);
        CHECK(sx_slot_reap(&heap, slot[c]) == 1);
        CHECK(sx_slot_reserve(&heap, 1) == slot[c], "the slot is free again, and the only one");
        leave_places_of(slot[c]);
        if (kills % 16 == 0)
            sx_heap_trim(&heap);
        kills++;
        if (!(pid[c] = spawn()))
            child(slot[c], kills + CHILDREN);
    } while (time_left());
    for (int c = 0; c < CHILDREN; c++)
        kill_and_wait(pid[c]);
    for (int c = 0; c < CHILDREN; c++)
        CHECK(sx_slot_reap(&heap, slot[c]) == 1);
    const char *wrong = sx_heap_check(&heap, 1);
    CHECK(!wrong, "%s", wrong);
    sx_ticket_drop_all(&heap);
    expect_quiet(&heap, 0);
    expect_usable(&heap);
    expect_quiet(&heap, 0);
    printf("kills %llu allocs %llu holds %llu stale %llu tickets %llu full %llu\n", (unsigned long long)kills,
           (unsigned long long)board->allocs, (unsigned long long)board->holds, (unsigned long long)board->stale,
           (unsigned long long)board->read, (unsigned long long)board->full);
    return 0;
}
