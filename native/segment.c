/* segment.c - the memfd kind, on Linux; see segment.h. */
#define _GNU_SOURCE
#include "segment.h"

#include "layout.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Reserve more than is needed, then lay the mapping on a multiple of 2 MiB in it: congruent to the file offset. */
static int map(sx_segment_t *segment) {
    uint64_t reserve = segment->bytes + SX_PAGE_BYTES;
    char *start = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return -errno;
    char *base = (char *)SX_ALIGN((uintptr_t)start, SX_PAGE_BYTES);
    char *mapped = mmap(base, segment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, segment->fd, 0);
    if (mapped == MAP_FAILED) {
        int code = -errno;
        munmap(start, reserve);
        return code;
    }
    if (base > start)
        munmap(start, (size_t)(base - start));
    munmap(base + segment->bytes, (size_t)(start + reserve - base) - segment->bytes);
    madvise(base, segment->bytes, MADV_DONTDUMP); /* a core file of 1 TiB helps nobody */
    segment->base = base;
    return 0;
}

int sx_segment_create(sx_segment_t *segment, uint64_t bytes) {
    int code;
    *segment = (sx_segment_t){.kind = SX_MEMFD, .bytes = bytes};
    segment->fd = memfd_create("shmexec", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (segment->fd < 0)
        return -errno;
    if (ftruncate(segment->fd, (off_t)bytes))
        code = -errno;
    else
        code = map(segment);
    if (code)
        close(segment->fd);
    else /* nobody may shorten it under our feet, which would be a SIGBUS; not all kernels know it, so no error */
        (void)!fcntl(segment->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return code;
}

int sx_segment_attach(sx_segment_t *segment, int fd) {
    struct stat status;
    *segment = (sx_segment_t){.kind = SX_MEMFD, .fd = fd};
    if (fstat(fd, &status))
        return -errno;
    segment->bytes = (uint64_t)status.st_size;
    return map(segment);
}

int sx_segment_map_private(sx_segment_t *segment) {
    void *mapped = mmap(segment->base, segment->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                        segment->fd, 0);
    return mapped == MAP_FAILED ? -errno : 0;
}

void sx_segment_close(sx_segment_t *segment) {
    munmap(segment->base, segment->bytes);
    close(segment->fd);
}

uint64_t sx_segment_resident(const sx_segment_t *segment) {
    struct stat status;
    return fstat(segment->fd, &status) ? 0 : (uint64_t)status.st_blocks * 512;
}

uint64_t sx_segment_inode(const sx_segment_t *segment) {
    struct stat status;
    return fstat(segment->fd, &status) ? 0 : (uint64_t)status.st_ino;
}

int sx_segment_populate(sx_segment_t *segment, uint64_t offset, uint32_t *huge_pages) {
    uint64_t page = offset / SX_PAGE_BYTES * SX_PAGE_BYTES;
    if (*huge_pages != 2) {
        ssize_t written;
        do
            written = pwrite(segment->fd, "", 1, (off_t)offset);
        while (written < 0 && errno == EINTR);
        if (written != 1)
            return written < 0 ? -errno : -ENOSPC;
        if (!madvise(segment->base + page, SX_PAGE_BYTES, MADV_COLLAPSE)) {
            *huge_pages = 1;
            return 0;
        }
        if (errno == EINVAL && *huge_pages != 1) /* this kernel does not; ENOMEM and EAGAIN may pass */
            *huge_pages = 2;
    }
    int code;
    do
        code = fallocate(segment->fd, FALLOC_FL_KEEP_SIZE, (off_t)page, (off_t)SX_PAGE_BYTES) ? -errno : 0;
    while (code == -EINTR);
    return code == -EOPNOTSUPP || code == -ENOSYS ? 0 : code;
}

int sx_segment_remove(sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    return madvise(segment->base + offset, bytes, MADV_REMOVE) ? -errno : 0;
}

char *sx_segment_borrow(const sx_segment_t *segment, uint64_t offset, uint64_t bytes, void **mapping, uint64_t *mapped) {
    uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / small * small, need = SX_ALIGN(offset + bytes - from, small);
    *mapped = need + 2 * SX_PAGE_BYTES;
    *mapping = mmap(NULL, *mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*mapping == MAP_FAILED)
        return NULL;
    char *base = (char *)SX_ALIGN((uintptr_t)*mapping, SX_PAGE_BYTES) + from % SX_PAGE_BYTES;
    if (mmap(base, need, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, segment->fd, (off_t)from) == MAP_FAILED) {
        munmap(*mapping, *mapped);
        return NULL;
    }
    return base + (offset - from);
}

void sx_segment_give_back(void *mapping, uint64_t mapped) {
    munmap(mapping, mapped);
}

const char *sx_segment_kind_name(const sx_segment_t *segment) {
    return segment->kind == SX_MEMFD ? "memfd" : "unknown";
}
