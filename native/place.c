/* place.c - place.h on Linux. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "place.h"

#include <assert.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { FREE = 0, BUSY = 1, MOVED = 2 };

#define PATIENCE 100000 /* times that the core is given away: longer than the machine takes a core from somebody */

/* Plus one; 0: not known. */
static uint32_t this_core(void) {
    int core = sched_getcpu();
    return core >= 0 ? (uint32_t)core + 1 : 0;
}

static_assert(sizeof(((sx_mask_t *)0)->words) == sizeof(cpu_set_t), "the same bits");

static void restore(sx_slot_t *slot, const sx_mask_t *mask) {
    uint32_t moved = sx_load_acquire(&slot->moved);
    for (int i = 0; moved == BUSY && i < PATIENCE; i++) { /* in the middle of two system calls; or dead */
        sched_yield();
        moved = sx_load_acquire(&slot->moved);
    }
    if (moved != MOVED)
        return;
    if (mask->known)
        sched_setaffinity(0, sizeof mask->words, (const cpu_set_t *)mask->words);
    SX_STEP();
    sx_store_release(&slot->moved, FREE);
}

static void note_core(sx_slot_t *slot, const sx_mask_t *mask) {
    uint32_t core = this_core();
    SX_STEP();
    sx_store_relaxed(&slot->core, mask->known ? core : 0);
}

void sx_place_note(sx_slot_t *slot, sx_mask_t *mask) {
    sx_mask_t now = {.known = 1};
    restore(slot, mask); /* it came late */
    if (sx_load_acquire(&slot->moved) == FREE && !sched_getaffinity(0, sizeof now.words, (cpu_set_t *)now.words) &&
        sx_load_acquire(&slot->moved) == FREE)
        *mask = now;
    note_core(slot, mask);
}

void sx_place_restore(sx_slot_t *slot, const sx_mask_t *mask) {
    sx_fence_seq_cst(); /* SYNC POINT place: it has said that it is awake, and looks whether it was moved */
    restore(slot, mask);
    note_core(slot, mask);
}

void sx_place_elsewhere(sx_slot_t *slot) {
    uint32_t here = this_core(), is_free = FREE;
    pid_t pid = (pid_t)sx_load_relaxed(&slot->pid);
    sx_mask_t mask;
    cpu_set_t *set = (cpu_set_t *)mask.words;
    if (!here || !pid || !sx_load_relaxed(&slot->core) || (SX_STEP(), !sx_cas_acq_rel(&slot->moved, &is_free, BUSY)))
        return;
    sx_fence_seq_cst(); /* SYNC POINT place: it says that it moves, and looks whether the other still sleeps */
    int is_moved = sx_load_relaxed(&slot->waiting) && !sched_getaffinity(pid, sizeof mask.words, set) && CPU_COUNT(set) > 1 && CPU_ISSET(here - 1, set);
    if (is_moved) {
        CPU_CLR(here - 1, set);
        is_moved = !sched_setaffinity(pid, sizeof mask.words, set);
    }
    SX_STEP();
    sx_store_release(&slot->moved, is_moved ? MOVED : FREE);
}

int sx_place_is_shared(const sx_slot_t *slot) {
    uint32_t core = sx_load_relaxed(&((sx_slot_t *)slot)->core);
    return core && core == this_core();
}

void sx_place_leave(void) {
    uint32_t here = this_core();
    cpu_set_t own, others;
    if (!here || sched_getaffinity(0, sizeof own, &own) || CPU_COUNT(&own) < 2 || !CPU_ISSET(here - 1, &own))
        return;
    others = own;
    CPU_CLR(here - 1, &others);
    if (sched_setaffinity(0, sizeof others, &others))
        return;
    SX_STEP();
    sched_setaffinity(0, sizeof own, &own);
}

static uint32_t this_thread(void) {
    return (uint32_t)syscall(SYS_gettid);
}

void sx_place_falls_asleep(sx_sleepers_t *sleepers) {
    sleepers->thread = this_thread();
    sleepers->core = this_core();
}

static void give_back(sx_sleepers_t *sleepers) {
    sched_setaffinity((pid_t)sleepers->pulled, sizeof sleepers->mask.words, (const cpu_set_t *)sleepers->mask.words);
    sleepers->pulled = 0;
}

void sx_place_is_awake(sx_sleepers_t *sleepers) {
    if (sleepers->pulled && sleepers->pulled == this_thread())
        give_back(sleepers);
}

void sx_place_here(sx_sleepers_t *sleepers) {
    uint32_t core = this_core();
    cpu_set_t here, *own = (cpu_set_t *)sleepers->mask.words;
    if (!core || !sleepers->core || sleepers->core == core)
        return;
    if (sleepers->pulled && sleepers->pulled != sleepers->thread)
        give_back(sleepers);
    if (!sleepers->pulled && sched_getaffinity((pid_t)sleepers->thread, sizeof here, own))
        return;
    CPU_ZERO(&here);
    CPU_SET(core - 1, &here);
    if (CPU_ISSET(core - 1, own) && !sched_setaffinity((pid_t)sleepers->thread, sizeof here, &here))
        sleepers->pulled = sleepers->thread;
}
