/* owner.h - what the operating system knows of processes: which is it, is it certainly dead (a pid alone says neither: pids are
 * used again), what has it mapped. */
#ifndef SX_OWNER_H
#define SX_OWNER_H

#include <stddef.h>
#include <stdint.h>

/* Start time of a process in clock ticks since boot; 0 if it cannot be read: no such process, no /proc, no descriptor left. */
uint64_t sx_process_start_time(uint32_t pid);

/* 1 only if it is certain: no such pid, another start time (0: not known), or all its threads have ended (a zombie leader alone is
 * no death). */
int sx_process_is_dead(uint32_t pid, uint64_t start_time);

/* Its command line, with spaces between the words. -ESRCH and the like. */
int sx_process_command(uint32_t pid, char *text, size_t size);

/* Inode of the file that is mapped at this address of this process; 0: none, or it cannot be known. */
uint64_t sx_mapped_inode(const void *address);

#endif
