/* runs.h - the free runs of granules in the extents that this process owns. Private memory; the caller holds the mutex.
 *
 * A two-level segregated fit (M. Masmano, I. Ripoll, A. Crespo, J. Real: TLSF, ECRTS 2004): lists by size, 16 to each power of two,
 * a bitmap of the lists that are not empty, coalescing at once by the edges of neighbouring runs. Taking and giving cost the
 * same with 10 and with 100,000 blocks. The links lie outside the data: a stray write cannot reach them.
 *
 * Invariants (sx_runs_check): two free runs of an extent never touch; each stands in the list of its size; edge[] knows the
 * first and the last granule of each free run and nothing else; `free` of an extent is the sum of its runs.
 */
#ifndef SX_RUNS_H
#define SX_RUNS_H

#include "layout.h"

/* What an owner keeps of each of its extents. Mapped lazily zero: an extent with few blocks costs few pages. */
typedef struct {
    uint32_t edge[SX_EXTENT_GRANULES];             /* number + 1 of the free run that begins or ends here */
    uint64_t taken[SX_EXTENT_BLOCKS / 64];         /* bit b: descriptor b is out: LIVE, or released and not yet taken back */
    uint64_t run[SX_EXTENT_BLOCKS];                /* of the descriptors that are out: what others write there counts for nothing */
    uint16_t idle[SX_EXTENT_BLOCKS];               /* a stack of used descriptors that are IDLE */
    uint32_t idle_count;
    uint32_t free;
} sx_arena_t;

typedef struct {
    uint32_t extent, first, granules;
    uint32_t previous, next; /* in its list; 0 ends */
} sx_run_t;

#define SX_RUN_LISTS (17 * 16)
typedef struct {
    sx_run_t *runs; /* number 0 is not used */
    uint32_t capacity, used, spare;
    uint32_t heads[SX_RUN_LISTS];
    uint64_t filled[(SX_RUN_LISTS + 63) / 64];
    sx_arena_t **arenas; /* by extent; NULL: not mine */
} sx_runs_t;

int sx_runs_init(sx_runs_t *runs, uint32_t extent_count); /* 0, -ENOMEM */
void sx_runs_forget(sx_runs_t *runs);                     /* all of it: what a forked child does with its parent's */
int sx_runs_add_extent(sx_runs_t *runs, uint32_t extent); /* an arena without any free run; 0, -ENOMEM */
void sx_runs_drop_extent(sx_runs_t *runs, uint32_t extent);

/* A run of at least `granules`, cut to that size from its front; 0, or -ENOENT: none. */
int sx_runs_take(sx_runs_t *runs, uint32_t granules, uint32_t *extent, uint32_t *first);
/* Gives a run back, merged with its neighbours. 0, or -ENOMEM: forgotten, its memory is lost until the extent is free. */
int sx_runs_give(sx_runs_t *runs, uint32_t extent, uint32_t first, uint32_t granules);
/* Calls visit for each free run; for trim. */
void sx_runs_each(sx_runs_t *runs, void (*visit)(void *context, uint32_t extent, uint32_t first, uint32_t granules),
                  void *context);
const char *sx_runs_check(const sx_runs_t *runs); /* NULL, or the invariant that is broken */

#endif
