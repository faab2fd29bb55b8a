/* layout.h - what lies in the shared segment, with the invariants that heap_check.c executes.
 *
 *   segment  | header | slots | tickets | extent owners | extent records | marks | blocks |      data        |
 *                                          one word       one a extent    one a   65,536  |ext 0|ext 1|ext 2|...
 *                                          an extent                      extent  an extent
 *
 * Only what is touched has pages: the data are 1 TiB of addresses, their tables a quarter more; a new segment has a few dozen
 * KiB of memory.
 *
 * The data are cut into EXTENTS of 32 MiB. An extent has one owner (a process), taken by one compare-and-swap; only the owner
 * hands out memory in it. A BLOCK is the memory of one array: a run of 512-byte granules in one extent, or, above half an
 * extent, whole extents in a row. It is described by a block descriptor, far from the data, so that a stray write past an array
 * cannot reach it. Which run a descriptor describes is chosen by the owner at each allocation: free runs coalesce, and pages
 * that one array made warm serve the next array of any size.
 *
 * State word of a block [epoch:32 | gen:28 | ticketed:1 | state:3]
 *   IDLE  the descriptor has no run; it is its owner's to use
 *   LIVE  somebody holds the block
 *   FREE  released by the last holder, whoever that was; the run is not yet taken back by the owner
 *   TRIM  like FREE, while the process whose slot stands in the gen field gives the pages back to the kernel
 * Transitions, each one compare-and-swap of the whole word: IDLE->LIVE (owner), LIVE->FREE (anybody, try_free),
 * FREE->IDLE (owner), FREE->TRIM->FREE (anybody). The epoch moves with each hold and is never reset.
 *
 * Invariants (for each: E always, Q when nothing is going on)
 *   E1  the runs of the LIVE, FREE and TRIM blocks of an extent do not overlap, and lie inside it
 *   E2  a LIVE block's first granule is marked in `heads`, and head_block there is its number
 *   E3  the owner of an extent that has a LIVE block is a slot that is OWNED or REAPING with that incarnation
 *   E4  a TAIL of a LIVE block lies within the span of its head
 *   E6  tables have memory before anybody looks at them: owners and records of the extents below extent_high, marks as `marked`
 *       says, descriptors below `described`, and block_high <= described. Else a full /dev/shm would be a SIGBUS there. Each of
 *       these is raised after the memory was had: a process killed in between leaves too little said, and it is asked for again
 *   E5  a holder bit is set only for a slot that is not FREE (an outbox bit: its worker's slot)
 *   E7  resident + what the slots are providing <= bytes_limit, whenever somebody has found that there was room
 *   Q1  LIVE <=> some holder bit or some open ticket          (no leak, no premature free)
 *   Q2  IDLE, FREE => no holder bit
 *   Q3  each LIVE block that this process's table counts has this process's bit, and no other has
 *   Q4  in an extent that this process owns: granules of blocks + granules of free runs == SX_EXTENT_GRANULES
 *   Q5  the block of an open ticket is LIVE and TICKETED
 */
#ifndef SX_LAYOUT_H
#define SX_LAYOUT_H

#include "atomics.h"
#include <assert.h>
#include <stddef.h>

#define SX_MAGIC 0x3563657865786d68ull /* its highest byte changes with the layout */
#define SX_PAGE_BYTES ((uint64_t)2 << 20)
#define SX_EXTENT_BYTES ((uint64_t)32 << 20)
#define SX_EXTENT_PAGES (SX_EXTENT_BYTES / SX_PAGE_BYTES)
#define SX_GRANULE_BYTES 512u
#define SX_EXTENT_GRANULES 65536u
#define SX_EXTENT_BLOCKS 65536u
#define SX_PAGE_GRANULES ((uint32_t)(SX_PAGE_BYTES / SX_GRANULE_BYTES))
#define SX_HUGE_GRANULES (SX_EXTENT_GRANULES / 2) /* a larger block takes whole extents */
#define SX_SLOTS 512u
#define SX_PROCESSES (SX_SLOTS / 2)
#define SX_HOLDER_WORDS (SX_SLOTS / 64)
#define SX_TICKETS 4096u
#define SX_MOST_EXTENTS (1u << 24) /* what a head takes in an owner word */

/* ---- blocks ---------------------------------------------------------------------------------------------------------- */

enum { SX_IDLE = 0, SX_LIVE = 1, SX_TRIM = 2, SX_FREE = 3 }; /* IDLE is 0: what the kernel gives is a table of idle blocks */
#define SX_EPOCH ((uint64_t)1 << 32)
#define SX_GEN_SHIFT 4
#define SX_GEN_MASK ((uint64_t)0xfffffff)
#define SX_TICKETED ((uint64_t)8)
#define SX_STATE(word) ((unsigned)((word) & 7))
#define SX_GEN(word) (((word) >> SX_GEN_SHIFT) & SX_GEN_MASK)

typedef struct {
    sx_atomic64_t state;
    sx_atomic64_t birth; /* of the present life; names carry it. Written by the owner while IDLE */
    sx_atomic64_t holders[SX_HOLDER_WORDS];
    sx_atomic64_t run;   /* [first granule in the extent:32 | granules:32]; written by the owner while IDLE */
    sx_atomic64_t bytes; /* as asked for */
    sx_atomic32_t plain; /* 1: nobody asked for shared memory, the block only happens to lie here; sharing it clears this */
    uint32_t unused1;
    uint64_t unused[3];
} sx_block_t;
static_assert(sizeof(sx_block_t) == 128, "two cache lines: the state with the holders, then what is rarely read");

/* ---- slots: one pair of holder bits a process ------------------------------------------------------------------------- */

/* A process has an even slot, H; the odd one after it is its outbox, M. Slot 0 means "nobody".
 * Slot word [incarnation:24 | other's incarnation:24 | other's slot:12 | state:4]; OWNED: [incarnation:24 | pid:36 | state:4], so
 * that a process killed before it has stored its start time is known to be dead
 *   FREE -> RESERVED(by other) -> OWNED -> REAPING(by other) -> FREE;  FREE -> OWNED;  RESERVED -> REAPING */
enum { SX_SLOT_FREE = 0, SX_SLOT_RESERVED = 1, SX_SLOT_OWNED = 2, SX_SLOT_REAPING = 3 };
#define SX_SLOT_STATE(word) ((unsigned)((word) & 15))
#define SX_SLOT_OTHER(word) ((uint32_t)((word) >> 4) & 0xfff)
#define SX_SLOT_OTHER_INCARNATION(word) ((uint32_t)((word) >> 16) & 0xffffff)
#define SX_SLOT_INCARNATION(word) ((uint32_t)((word) >> 40))
#define SX_SLOT_WORD(incarnation, other, other_incarnation, state)                                                     \
    ((uint64_t)(incarnation) << 40 | (uint64_t)(other_incarnation) << 16 | (uint64_t)(other) << 4 | (uint64_t)(state))

#define SX_SLOT_PID(word) ((uint32_t)((word) >> 4))
#define SX_SLOT_OWNED_BY(incarnation, pid) ((uint64_t)(incarnation) << 40 | (uint64_t)(pid) << 4 | SX_SLOT_OWNED)

typedef struct {
    sx_atomic64_t word;
    sx_atomic64_t look;       /* bit extent % 64: another process has released a block of an extent of mine */
    sx_atomic64_t start_time; /* with pid: which process this is; 0 until it has come up */
    sx_atomic64_t guardian;   /* [incarnation:24 | slot:12 | 1], the pool parent who alone reaps this slot; 0: anybody */
    sx_atomic32_t pid;
    sx_atomic32_t bell;    /* counts; the futex that this process sleeps on. Here, since whoever rings late only wakes a newcomer */
    sx_atomic32_t waiting; /* it sleeps, or is about to */
    sx_atomic32_t core;    /* plus one, where it fell asleep or woke last (place.h) */
    sx_atomic32_t moved;
    sx_atomic32_t providing; /* small pages that it has found room for under bytes_limit and is asking the kernel for */
    uint32_t unused[2];
} sx_slot_t;
static_assert(sizeof(sx_slot_t) == 64, "one cache line");

/* Holder bits are in pairs, processes are not: where the odd slot would be lies the process's BOARD (board.h), which nothing that
 * works reads. `incarnation` says of which life of the slot the bytes are; a channel and a hub are named by block and birth. */
typedef struct {
    sx_atomic64_t channel_birth, hub_birth; /* of a worker: written by its parent before it is started */
    sx_atomic32_t channel, hub;
    sx_atomic32_t incarnation;
    uint32_t unused1;
    sx_atomic64_t bytes_by_name, bytes_copied; /* of all pools of this process */
    uint64_t unused2[2];
} sx_board_t;
static_assert(sizeof(sx_board_t) == sizeof(sx_slot_t), "");

/* ---- extents ----------------------------------------------------------------------------------------------------------- */

/* Owner word [incarnation:24 | slot:12 | head:24 | kind:4]; 0 is free for the taking. Its pages may be warm. */
enum { SX_EXTENT_FREE = 0, SX_EXTENT_ARENA = 1, SX_EXTENT_HUGE = 2, SX_EXTENT_TAIL = 3, SX_EXTENT_BUSY = 4 };
#define SX_EXTENT_KIND(word) ((unsigned)((word) & 15))
#define SX_EXTENT_HEAD(word) ((uint32_t)((word) >> 4) & 0xffffff)
#define SX_EXTENT_SLOT(word) ((uint32_t)((word) >> 28) & 0xfff)
#define SX_EXTENT_INCARNATION(word) ((uint32_t)((word) >> 40))
#define SX_EXTENT_WORD(incarnation, slot, head, kind)                                                                  \
    ((uint64_t)(incarnation) << 40 | (uint64_t)(slot) << 28 | (uint64_t)(head) << 4 | (uint64_t)(kind))

typedef struct {
    sx_atomic32_t populated;  /* bit p: page p was handed out since it last was zero; whoever may write the page sets it first */
    sx_atomic32_t block_high; /* block descriptors below this have been used */
    sx_atomic32_t span;       /* HUGE: extents of the block */
    sx_atomic32_t backed;     /* bit p: page p has memory behind it: it may be written without asking the kernel */
    sx_atomic64_t hints; /* bit b: look at the words [16 b, 16 b + 16) of marks.released */
    sx_atomic32_t marked;    /* SX_MARKED_*: what of `marks` has memory */
    sx_atomic32_t described; /* block descriptors below this have memory; block_high never passes it */
    uint64_t unused2[4];
} sx_extent_t;
static_assert(sizeof(sx_extent_t) == 64, "one cache line");

/* Of an extent whose blocks are HUGE only the first word of `released` is used. */
enum { SX_MARKED_HUGE = 1, SX_MARKED_ARENA = 2 };

typedef struct {
    sx_atomic64_t heads[SX_EXTENT_GRANULES / 64];    /* bit g: a block begins at granule g. The owner writes */
    sx_atomic64_t released[SX_EXTENT_BLOCKS / 64];   /* bit b: block b was released by a process that is not the owner */
    _Atomic uint16_t head_block[SX_EXTENT_GRANULES]; /* the number of the block that begins there */
} sx_marks_t;

/* ---- tickets: names for receivers that are not known ---------------------------------------------------------------------- */

/* One word [seq:31 | block:32 | OPEN:1]: nothing half made, so nothing to mend after a death. */
#define SX_TICKET_OPEN ((uint64_t)1)
#define SX_TICKET_BLOCK(word) ((uint32_t)((word) >> 1))
#define SX_TICKET_SEQ(word) ((uint32_t)((word) >> 33))
#define SX_TICKET_WORD(seq, block) (((uint64_t)(seq) & 0x7fffffff) << 33 | (uint64_t)(block) << 1 | SX_TICKET_OPEN)

/* ---- header ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    sx_atomic64_t magic; /* stored last by the creator */
    uint64_t identity;   /* random: tells one heap's names from another's */
    uint64_t segment_bytes;
    uint32_t extent_count;
    uint32_t creator_pid;
    sx_atomic64_t bytes_limit;
    sx_atomic32_t slot_high;   /* slots below this have been used; raised before a slot's first hold */
    sx_atomic32_t extent_high; /* extents below this have been used */
    sx_atomic32_t ticket_high;
    sx_atomic32_t trim_requests; /* counts calls of trim: each process gives its own free pages back when it sees a new one */
    sx_atomic32_t huge_pages;    /* 0 not tried, 1 works, 2 refused */
    uint32_t unused[3];
} sx_header_t;

/* Where things lie, as offsets from the start of the segment; computed from extent_count alone. */
#define SX_ALIGN(n, to) (((uint64_t)(n) + (to) - 1) / (to) * (to))
#define SX_AT_SLOTS SX_ALIGN(sizeof(sx_header_t), 4096)
#define SX_AT_TICKETS (SX_AT_SLOTS + SX_SLOTS * sizeof(sx_slot_t))
#define SX_AT_OWNERS (SX_AT_TICKETS + SX_TICKETS * 8)
#define SX_AT_EXTENTS(count) SX_ALIGN(SX_AT_OWNERS + (uint64_t)(count) * 8, 4096)
#define SX_AT_MARKS(count) SX_ALIGN(SX_AT_EXTENTS(count) + (uint64_t)(count) * sizeof(sx_extent_t), 4096)
#define SX_AT_BLOCKS(count) SX_ALIGN(SX_AT_MARKS(count) + (uint64_t)(count) * sizeof(sx_marks_t), 4096)
#define SX_AT_DATA(count)                                                                                              \
    SX_ALIGN(SX_AT_BLOCKS(count) + (uint64_t)(count) * SX_EXTENT_BLOCKS * sizeof(sx_block_t), SX_PAGE_BYTES)
#define SX_SEGMENT_BYTES(count) (SX_AT_DATA(count) + (uint64_t)(count) * SX_EXTENT_BYTES)

#endif
