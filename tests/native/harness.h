/* harness.h - what the native test programs share: arguments, checks, heaps, processes, the step hook.
 *
 * Each program is run as `program SEED SECONDS` and exits 0, or says on stderr which claim does not hold and exits 1.
 * Several heaps in one process are several members of the shared heap, each with a slot, a table and runs of its own: an order
 * of events between "processes" is then forced by calling one after the other, or by on_step in the middle of a call.
 */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "fork.h"
#include "hub.h"
#include "outbox.h"
#include "owner.h"
#include "sites.h"
#include "slot.h"
#include "ticket.h"
#include <errno.h>
#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wformat-zero-length"
#endif

static uint64_t seed = 1;
static double seconds = 1;
static _Thread_local uint64_t random_state = 88172645463325252ull;

static inline uint32_t rnd(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 20) % below;
}

static void start_random(uint64_t with) {
    random_state = (seed + 1) * 0x9e3779b97f4a7c15ull ^ (with + 1) * 0xd1342543de82ef95ull;
    if (!random_state)
        random_state = 1;
    for (int i = 0; i < 8; i++)
        rnd(2);
}

#define CHECK(holds, ...)                                                                                              \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            fflush(stdout);                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", strrchr("/" __FILE__, '/') + 1, __LINE__, #holds);                          \
            fprintf(stderr, "" __VA_ARGS__);                                                                           \
            fprintf(stderr, " (seed %llu)\n", (unsigned long long)seed);                                               \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* ---- time --------------------------------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static double began;

static int time_left(void) {
    return now() - began < seconds;
}

static void begin(int argc, char **argv) {
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    seconds = argc > 2 ? atof(argv[2]) : 1;
    start_random(0);
#ifdef M_PERTURB
    mallopt(M_PERTURB, 0x5a); /* memory that nobody has written is not zero */
#endif
    began = now();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* Waits for something that another process or thread is certain to do. */
#define WAIT_UNTIL(condition)                                                                                          \
    do {                                                                                                               \
        double waits_since = now();                                                                                    \
        while (!(condition)) {                                                                                         \
            CHECK(now() - waits_since < 20, "waited in vain for %s", #condition);                                      \
            sched_yield();                                                                                             \
        }                                                                                                              \
    } while (0)

/* ---- steps -------------------------------------------------------------------------------------------------------------- */

static void (*on_step)(void); /* set while no other thread runs */
static uint64_t steps, kill_at;

void sx_step(const char *file, int line) {
    note_site(file, line);
    if (on_step)
        on_step();
}

static void count_steps(void) {
    steps++;
}

static void kill_at_step(void) {
    if (++steps == kill_at)
        raise(SIGKILL);
}

static void yield_at_steps(void) {
    if (rnd(16) == 0)
        sched_yield();
}

/* ---- heaps -------------------------------------------------------------------------------------------------------------- */

static int kind_of_test(void) {
    const char *wanted = getenv("SHMEXEC_SEGMENT");
    for (int kind = 1; wanted && kind <= SX_KINDS; kind++)
        if (!strcmp(sx_segment_kind_name(kind), wanted))
            return kind;
    return SX_MEMFD;
}

static void create(sx_heap_t *heap, uint64_t extents) {
    int code = sx_heap_create(heap, kind_of_test(), extents * SX_EXTENT_BYTES);
    CHECK(code == 0, "create %d", code);
    CHECK(heap->extent_count == extents);
}

static int try_join(sx_heap_t *heap, const sx_heap_t *other, uint32_t reserved) {
    int number = other->segment.number;
    if (sx_segment_is_file(&other->segment))
        number = fcntl(number, F_DUPFD_CLOEXEC, 0);
    CHECK(number >= 0);
    return sx_heap_attach(heap, other->segment.kind, number, reserved);
}

static void join(sx_heap_t *heap, const sx_heap_t *other, uint32_t reserved) {
    int code = try_join(heap, other, reserved);
    CHECK(code == 0, "attach %d, slot %u", code, reserved);
}

/* A member that uses the mapping of another: the sanitizers see that its addresses are the same memory. */
static void join_at_same_addresses(sx_heap_t *heap, const sx_heap_t *other, uint32_t reserved) {
    memset(heap, 0, sizeof *heap);
    heap->segment = other->segment;
    heap->header = other->header;
    heap->slots = other->slots;
    heap->tickets = other->tickets;
    heap->owners = other->owners;
    heap->extents = other->extents;
    heap->marks = other->marks;
    heap->blocks = other->blocks;
    heap->data = other->data;
    heap->extent_count = other->extent_count;
    heap->scan = other->scan;
    pthread_mutex_init(&heap->mutex, NULL);
    heap->me = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(heap->me != MAP_FAILED && !madvise(heap->me, 4096, MADV_WIPEONFORK));
    CHECK(sx_runs_init(&heap->runs, heap->extent_count) == 0);
    CHECK(sx_slot_claim(heap, reserved) == 0);
}

static sx_name_t alloc(sx_heap_t *heap, uint64_t bytes) {
    sx_name_t name;
    char *start;
    int code = sx_heap_alloc(heap, bytes, 0, &name, &start);
    CHECK(code == 0, "alloc of %llu bytes: %d", (unsigned long long)bytes, code);
    CHECK((uintptr_t)start % 64 == 0 && start == sx_heap_start(heap, name.block));
    return name;
}

static sx_block_t *block_of(const sx_heap_t *heap, sx_name_t name) {
    return sx_block_of(heap, name.block);
}

static unsigned state_of(const sx_heap_t *heap, sx_name_t name) {
    return SX_STATE(sx_load_acquire(&block_of(heap, name)->state));
}

static int has_bit(const sx_heap_t *heap, sx_name_t name, uint32_t slot) {
    return sx_load_acquire(&block_of(heap, name)->holders[slot / 64]) >> (slot % 64) & 1;
}

/* LIVE under that birth: what every holder relies on. */
static int is_there(const sx_heap_t *heap, sx_name_t name) {
    return sx_block_is(block_of(heap, name), name.birth);
}

static uint64_t living(sx_heap_t *heap) {
    sx_heap_info_t info;
    sx_heap_info(heap, &info);
    return info.blocks;
}

static uint64_t members(sx_heap_t *heap) {
    sx_heap_info_t info;
    sx_heap_info(heap, &info);
    return info.processes;
}

/* Beyond sx_heap_check: in each arena of this member the head marks are those of its blocks, no more. */
static void check_marks(sx_heap_t *heap) {
    for (uint32_t e = 0; e < sx_load_acquire(&heap->header->extent_high); e++) {
        if (!heap->runs.arenas[e])
            continue;
        uint32_t marks = 0, blocks = 0;
        for (uint32_t w = 0; w < SX_EXTENT_GRANULES / 64; w++)
            marks += (uint32_t)__builtin_popcountll(sx_load_acquire(&heap->marks[e].heads[w]));
        for (uint32_t b = 0; b < sx_load_acquire(&heap->extents[e].block_high); b++)
            blocks += SX_STATE(sx_load_acquire(&sx_block_of(heap, e * SX_EXTENT_BLOCKS + b)->state)) != SX_IDLE;
        CHECK(marks == blocks, "extent %u: %u marks, %u blocks", e, marks, blocks);
    }
}

static void expect_quiet(sx_heap_t *heap, uint64_t blocks) {
    const char *wrong = sx_heap_check(heap, 1);
    CHECK(!wrong, "%s", wrong);
    CHECK(living(heap) == blocks, "%llu live blocks, not %llu", (unsigned long long)living(heap), (unsigned long long)blocks);
    check_marks(heap);
}

/* The heap works: what is handed out is zero if so asked, holds what is written, and comes back. */
static void expect_usable(sx_heap_t *heap) {
    static const uint64_t sizes[] = {0, 1, 512, 5000, 300000, SX_EXTENT_BYTES / 2 + 1, SX_EXTENT_BYTES + 1};
    uint64_t before = living(heap);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sx_name_t name;
        char *start;
        int code = sx_heap_alloc(heap, sizes[i], 1, &name, &start);
        CHECK(code == 0, "size %llu: %d", (unsigned long long)sizes[i], code);
        for (uint64_t at = 0; at < sizes[i]; at += sizes[i] > 10000 ? 4096 : 1) {
            CHECK(start[at] == 0, "not zero");
            start[at] = 1;
        }
        sx_heap_release(heap, name.block);
    }
    CHECK(living(heap) == before);
}

static uint32_t free_slots(const sx_heap_t *heap) {
    uint32_t count = 0;
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2)
        count += SX_SLOT_STATE(sx_load_acquire(&heap->slots[slot].word)) == SX_SLOT_FREE;
    return count;
}

/* Keeps every slot below `end`, so that the members to come lie where the test wants them: slot / 64 is the holder word. */
static void keep_slots(sx_heap_t *heap, uint32_t end) {
    for (uint32_t slot = 0; slot + 2 < end;) {
        slot = sx_slot_reserve(heap, 1);
        CHECK(slot);
    }
}

/* From now on `heap` reaps this slot whenever it says so: a member of this same process that is to be dead. */
static void guard(sx_heap_t *heap, uint32_t slot) {
    sx_store_release(&heap->slots[slot].guardian, (uint64_t)heap->me->incarnation << 24 | (uint64_t)heap->me->slot << 4 | 1);
}

/* ---- data --------------------------------------------------------------------------------------------------------------- */

static uint64_t pattern_of(sx_name_t name) {
    return (name.birth << 32 | name.block) * 0x9e3779b97f4a7c15ull | 1;
}

static uint64_t stride_for(uint64_t bytes) {
    return bytes <= 16384 ? 8 : 4096;
}

static void paint(char *start, uint64_t bytes, uint64_t pattern) {
    for (uint64_t at = 0; at + 8 <= bytes; at += stride_for(bytes))
        memcpy(start + at, &pattern, 8);
}

static int is_painted(const char *start, uint64_t bytes, uint64_t pattern) {
    for (uint64_t at = 0; at + 8 <= bytes; at += stride_for(bytes))
        if (memcmp(start + at, &pattern, 8))
            return 0;
    return 1;
}

/* ---- processes ---------------------------------------------------------------------------------------------------------- */

static void *shared(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

/* A raw fork: without the hooks. The child ends when the test ends, however that is. */
static pid_t spawn(void) {
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0, "fork: %d", errno);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
    }
    return pid;
}

static int status_of(pid_t pid) {
    int status = 0;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    CHECK(got == pid, "waitpid");
    return status;
}

static void expect_clean_exit(pid_t pid) {
    int status = status_of(pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a process ended with status %x", status);
}

static void expect_killed_or_clean(pid_t pid) {
    int status = status_of(pid);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
          "a process ended with status %x", status);
}

static void kill_and_wait(pid_t pid) {
    kill(pid, SIGKILL);
    expect_killed_or_clean(pid);
}

/* One process lets another go on: a sequencer without sleeping. */
typedef struct {
    int ends[2];
} gate_t;

static gate_t make_gate(void) {
    gate_t gate;
    CHECK(pipe2(gate.ends, O_CLOEXEC) == 0);
    return gate;
}

static void open_gate(gate_t gate) {
    CHECK(write(gate.ends[1], "", 1) == 1);
}

static void pass_gate(gate_t gate) {
    char byte;
    struct pollfd waits = {.fd = gate.ends[0], .events = POLLIN};
    double since = now();
    while (poll(&waits, 1, 1000) != 1)
        CHECK(now() - since < 20, "nobody opens the gate");
    CHECK(read(gate.ends[0], &byte, 1) == 1);
}

#endif
