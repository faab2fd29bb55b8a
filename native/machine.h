/* machine.h - what this process may have of the machine: cores, memory, addresses. */
#ifndef SX_MACHINE_H
#define SX_MACHINE_H

#include <stddef.h>
#include <stdint.h>

uint32_t sx_usable_cores(void);   /* at least 1: by affinity, and by the quota of the cgroup and of each above it, rounded up */
uint64_t sx_machine_memory(void); /* bytes: the smaller of physical memory and the cgroup's limit */
uint64_t sx_address_room(void);   /* bytes of addresses that this process may still map (ulimit -v); UINT64_MAX: no limit */

/* What a file of the kernel's says, behind which a zero is put: how many bytes, or -errno. */
int sx_read_text(const char *path, char *text, size_t size);

#endif
