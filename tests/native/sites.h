/* sites.h - which SX_STEP() were come to, by any process of a test: into the file that SHMEXEC_TEST_SITES names.
 *
 * The file has room for MOST_SITES lines of SITE_BYTES each, in no order; a process notes each site once, so there are duplicates.
 */
#ifndef SX_SITES_H
#define SX_SITES_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SITE_BYTES = 32, MOST_SITES = 1 << 16, KNOWN_SITES = 1 << 11 };

typedef struct {
    _Atomic uint64_t count;
    char pad[SITE_BYTES - 8];
    char sites[MOST_SITES - 1][SITE_BYTES];
} sites_t;

static sites_t *sites;
static _Atomic uint64_t known_sites[KNOWN_SITES]; /* of this process: 0, or what a site is known by */

__attribute__((constructor)) static void map_sites(void) {
    const char *path = getenv("SHMEXEC_TEST_SITES");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    if (!ftruncate(fd, sizeof *sites)) {
        void *mapped = mmap(NULL, sizeof *sites, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        sites = mapped == MAP_FAILED ? NULL : mapped;
    }
    close(fd);
}

static inline void note_site(const char *file, int line) {
    if (!sites)
        return;
    uint64_t site = (uint64_t)(uintptr_t)file << 16 ^ (uint64_t)line, none = 0; /* a file is known by where its name stands */
    for (uint64_t i = site * 0x9e3779b97f4a7c15u >> 53; i < KNOWN_SITES; i++, none = 0) {
        if (known_sites[i] == site)
            return;
        if (atomic_compare_exchange_strong(&known_sites[i], &none, site))
            break;
    }
    uint64_t at = atomic_fetch_add(&sites->count, 1);
    const char *name = strrchr(file, '/');
    if (at < MOST_SITES - 1)
        snprintf(sites->sites[at], SITE_BYTES, "%.20s:%d\n", name ? name + 1 : file, line);
}

#endif
