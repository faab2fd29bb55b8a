/* runs.c - two-level segregated fit over granules; see runs.h. */
#include "runs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* List of a run of n granules: 16 lists to each power of two; below 16 one list a size. */
static uint32_t list_of(uint32_t granules) {
    if (granules < 16)
        return granules;
    uint32_t power = 31 - (uint32_t)__builtin_clz(granules);
    return (power - 3) * 16 + ((granules >> (power - 4)) & 15);
}

/* The first list whose runs are all at least n granules long. */
static uint32_t list_above(uint32_t granules) {
    if (granules < 16)
        return granules;
    uint32_t power = 31 - (uint32_t)__builtin_clz(granules);
    return list_of(granules + (1u << (power - 4)) - 1);
}

int sx_runs_init(sx_runs_t *runs, uint32_t extent_count) {
    memset(runs, 0, sizeof *runs);
    runs->used = 1;
    runs->arenas = calloc(extent_count, sizeof *runs->arenas);
    return runs->arenas ? 0 : -ENOMEM;
}

void sx_runs_forget(sx_runs_t *runs) {
    free(runs->runs);
    free(runs->arenas); /* the arenas themselves: address space of a child that has a copy of its parent's; left */
    memset(runs, 0, sizeof *runs);
}

int sx_runs_add_extent(sx_runs_t *runs, uint32_t extent) {
    void *arena = mmap(NULL, sizeof(sx_arena_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        return -ENOMEM;
    runs->arenas[extent] = arena;
    return 0;
}

static void unlink_run(sx_runs_t *runs, uint32_t number) {
    sx_run_t *run = &runs->runs[number];
    sx_arena_t *arena = runs->arenas[run->extent];
    uint32_t list = list_of(run->granules);
    if (run->next)
        runs->runs[run->next].previous = run->previous;
    if (run->previous)
        runs->runs[run->previous].next = run->next;
    else {
        runs->heads[list] = run->next;
        if (!run->next)
            runs->filled[list / 64] &= ~((uint64_t)1 << (list % 64));
    }
    arena->edge[run->first] = arena->edge[run->first + run->granules - 1] = 0;
    arena->free -= run->granules;
    run->next = runs->spare;
    run->granules = 0;
    runs->spare = number;
}

static int link_run(sx_runs_t *runs, uint32_t extent, uint32_t first, uint32_t granules) {
    uint32_t number = runs->spare;
    if (number)
        runs->spare = runs->runs[number].next;
    else {
        if (runs->used >= runs->capacity) {
            uint32_t capacity = runs->capacity ? runs->capacity * 2 : 64;
            sx_run_t *wider = realloc(runs->runs, capacity * sizeof *wider);
            if (!wider)
                return -ENOMEM;
            runs->runs = wider;
            runs->capacity = capacity;
        }
        number = runs->used++;
    }
    uint32_t list = list_of(granules);
    sx_arena_t *arena = runs->arenas[extent];
    runs->runs[number] = (sx_run_t){extent, first, granules, 0, runs->heads[list]};
    if (runs->heads[list])
        runs->runs[runs->heads[list]].previous = number;
    runs->heads[list] = number;
    runs->filled[list / 64] |= (uint64_t)1 << (list % 64);
    arena->edge[first] = arena->edge[first + granules - 1] = number + 1;
    arena->free += granules;
    return 0;
}

void sx_runs_drop_extent(sx_runs_t *runs, uint32_t extent) {
    for (uint32_t number = 1; number < runs->used && runs->arenas[extent]->free; number++)
        if (runs->runs[number].granules && runs->runs[number].extent == extent)
            unlink_run(runs, number);
    munmap(runs->arenas[extent], sizeof(sx_arena_t));
    runs->arenas[extent] = NULL;
}

int sx_runs_take(sx_runs_t *runs, uint32_t granules, uint32_t *extent, uint32_t *first) {
    /* The list of this very size may hold a run that is just long enough: the hole that an array of this size left. */
    uint32_t number = runs->heads[list_of(granules)];
    for (int looks = 0; number && runs->runs[number].granules < granules;)
        number = ++looks < 4 ? runs->runs[number].next : 0; /* run 0 does not exist: nothing may be read of it */
    if (!number) {
        uint32_t list = list_above(granules), word = list / 64;
        uint64_t some = runs->filled[word] & ~(uint64_t)0 << (list % 64);
        while (!some) {
            if (++word >= sizeof runs->filled / sizeof *runs->filled)
                return -ENOENT;
            some = runs->filled[word];
        }
        number = runs->heads[word * 64 + (uint32_t)__builtin_ctzll(some)];
    }
    sx_run_t run = runs->runs[number];
    unlink_run(runs, number);
    if (run.granules > granules) /* cannot fail: there is a spare run now */
        link_run(runs, run.extent, run.first + granules, run.granules - granules);
    *extent = run.extent;
    *first = run.first;
    return 0;
}

int sx_runs_give(sx_runs_t *runs, uint32_t extent, uint32_t first, uint32_t granules) {
    sx_arena_t *arena = runs->arenas[extent];
    uint32_t before = first ? arena->edge[first - 1] : 0;
    uint32_t end = first + granules;
    uint32_t after = end < SX_EXTENT_GRANULES ? arena->edge[end] : 0;
    if (before) {
        first = runs->runs[before - 1].first;
        unlink_run(runs, before - 1);
    }
    if (after) {
        end = runs->runs[after - 1].first + runs->runs[after - 1].granules;
        unlink_run(runs, after - 1);
    }
    return link_run(runs, extent, first, end - first);
}

void sx_runs_each(sx_runs_t *runs, void (*visit)(void *, uint32_t, uint32_t, uint32_t), void *context) {
    for (uint32_t number = 1; number < runs->used; number++) {
        sx_run_t run = runs->runs[number];
        if (run.granules)
            visit(context, run.extent, run.first, run.granules);
    }
}

const char *sx_runs_check(const sx_runs_t *runs) {
    for (uint32_t list = 0; list < SX_RUN_LISTS; list++) {
        uint32_t previous = 0;
        if (!runs->heads[list] != !(runs->filled[list / 64] >> (list % 64) & 1))
            return "runs: the bitmap says which lists are not empty";
        for (uint32_t number = runs->heads[list]; number; number = runs->runs[number].next) {
            const sx_run_t *run = &runs->runs[number];
            const sx_arena_t *arena = runs->arenas[run->extent];
            if (run->previous != previous || list_of(run->granules) != list)
                return "runs: each run stands in the list of its size";
            if (!arena || run->first + run->granules > SX_EXTENT_GRANULES)
                return "runs: a run lies in an extent of this process";
            if (arena->edge[run->first] != number + 1 || arena->edge[run->first + run->granules - 1] != number + 1)
                return "runs: the edges name the run";
            if (run->first && arena->edge[run->first - 1])
                return "runs: two free runs never touch";
            previous = number;
        }
    }
    return NULL;
}
