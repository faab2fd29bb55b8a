/* segment.c - what all kinds of segment have in common, on Linux; see segment.h. */
#include "segment_kind.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static const sx_kind_t *const kinds[] = {NULL, &sx_memfd_kind, &sx_sysv_kind, &sx_posix_kind};

static const sx_kind_t *kind_of(const sx_segment_t *segment) {
    return kinds[segment->kind];
}

/* Reserve more than is needed, then lay the mapping on a multiple of 2 MiB in it: congruent to the file offset. */
static int map(sx_segment_t *segment, int readonly) {
    uint64_t reserve = segment->bytes + SX_PAGE_BYTES;
    char *start = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return -errno;
    char *base = (char *)SX_ALIGN((uintptr_t)start, SX_PAGE_BYTES);
    int code = kind_of(segment)->map(segment, base, readonly);
    if (code) {
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

int sx_segment_create(sx_segment_t *segment, int kind, uint64_t bytes) {
    *segment = (sx_segment_t){.kind = kind, .number = -1, .bytes = bytes};
    int code = kind_of(segment)->create(segment);
    if (code)
        return code;
    code = map(segment, 0);
    if (!code && !(code = kind_of(segment)->settle(segment)))
        return 0;
    kind_of(segment)->unlink(segment);
    sx_segment_close(segment);
    return code;
}

/* What does not look like a heap is not mapped: it may be shorter than what we would read of it. */
static int check_and_map(sx_segment_t *segment, int readonly) {
    sx_header_t header;
    int code = kind_of(segment)->peek(segment, &header);
    if (code)
        return code;
    if (header.magic != SX_MAGIC)
        return (header.magic ^ SX_MAGIC) << 8 ? -EINVAL : -EPROTO; /* its last byte is the version */
    if (header.segment_bytes != segment->bytes || header.extent_count < 2 || header.extent_count > SX_MOST_EXTENTS ||
        SX_SEGMENT_BYTES(header.extent_count) != segment->bytes)
        return -EINVAL;
    return map(segment, readonly);
}

int sx_segment_attach(sx_segment_t *segment, int kind, int number) {
    if (kind < 1 || kind > SX_KINDS)
        return -EINVAL;
    *segment = (sx_segment_t){.kind = kind, .number = number};
    return check_and_map(segment, 0);
}

int sx_segment_open(sx_segment_t *segment, const char *name, int readonly) {
    for (int kind = 1; kind <= SX_KINDS; kind++) {
        if (strncmp(name, kinds[kind]->prefix, strlen(kinds[kind]->prefix)))
            continue;
        *segment = (sx_segment_t){.kind = kind, .number = -1};
        int code = kinds[kind]->open(segment, name, readonly);
        if (!code && (code = check_and_map(segment, readonly)))
            sx_segment_close(segment);
        return code;
    }
    return -EINVAL;
}

void sx_segment_close(sx_segment_t *segment) {
    if (segment->base)
        munmap(segment->base, segment->bytes);
    kind_of(segment)->close(segment);
    segment->base = NULL;
}

void sx_segment_unlink(const sx_segment_t *segment) {
    kind_of(segment)->unlink(segment);
}

/* ---- names ----------------------------------------------------------------------------------------------------------- */

int sx_segment_name(const sx_segment_t *segment, char text[SX_NAME_BYTES]) {
    return kind_of(segment)->name_of(segment, text);
}

int sx_segment_is(const sx_segment_t *segment, const char *name) {
    char mine[SX_NAME_BYTES];
    const char *which = strrchr(name, ':'), *prefix = kind_of(segment)->prefix;
    if (!which || strncmp(name, prefix, strlen(prefix)) || sx_segment_name(segment, mine))
        return 0;
    return !strcmp(strrchr(mine, ':'), which); /* where it is may differ: each process has descriptors of its own */
}

const char *sx_segment_kind_name(int kind) {
    return kind >= 1 && kind <= SX_KINDS ? kinds[kind]->name : NULL;
}

int sx_segment_is_file(const sx_segment_t *segment) {
    return kind_of(segment)->is_file;
}

void sx_segment_each(sx_visit_t visit, void *context) {
    for (int kind = 1; kind <= SX_KINDS; kind++)
        kinds[kind]->each(visit, context);
}

void sx_segment_sweep(int kind, sx_visit_t visit, void *context) {
    kinds[kind]->sweep(visit, context);
}

/* ---- views ----------------------------------------------------------------------------------------------------------- */

int sx_segment_map_private(sx_segment_t *segment) {
    if (!sx_segment_is_file(segment))
        return -ENOTSUP;
    void *mapped = mmap(segment->base, segment->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                        segment->number, 0);
    return mapped == MAP_FAILED ? -errno : 0;
}

char *sx_segment_borrow(const sx_segment_t *segment, uint64_t offset, uint64_t bytes, void **mapping, uint64_t *mapped) {
    uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / small * small, need = SX_ALIGN(offset + bytes - from, small);
    if (!sx_segment_is_file(segment))
        return NULL;
    *mapped = need + 2 * SX_PAGE_BYTES;
    *mapping = mmap(NULL, *mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*mapping == MAP_FAILED)
        return NULL;
    char *base = (char *)SX_ALIGN((uintptr_t)*mapping, SX_PAGE_BYTES) + from % SX_PAGE_BYTES;
    if (mmap(base, need, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, segment->number, (off_t)from) ==
        MAP_FAILED) {
        munmap(*mapping, *mapped);
        return NULL;
    }
    return base + (offset - from);
}

void sx_segment_give_back(void *mapping, uint64_t mapped) {
    munmap(mapping, mapped);
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

uint64_t sx_segment_resident(const sx_segment_t *segment) {
    return kind_of(segment)->resident(segment);
}

uint64_t sx_segment_room(const sx_segment_t *segment) {
    return kind_of(segment)->room(segment);
}

int sx_segment_populate(sx_segment_t *segment, uint64_t offset, uint32_t *huge_pages) {
    uint64_t page = offset / SX_PAGE_BYTES * SX_PAGE_BYTES;
    if (*huge_pages != 2) {
        int code = kind_of(segment)->touch(segment, offset);
        if (code)
            return code;
        if (!madvise(segment->base + page, SX_PAGE_BYTES, MADV_COLLAPSE)) {
            *huge_pages = 1;
            return 0;
        }
        if (errno == EINVAL && *huge_pages != 1) /* this kernel does not; ENOMEM and EAGAIN may pass */
            *huge_pages = 2;
    }
    return sx_segment_reserve(segment, page, SX_PAGE_BYTES);
}

int sx_segment_reserve(const sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    return kind_of(segment)->reserve(segment, offset, bytes);
}

int sx_segment_remove(sx_segment_t *segment, uint64_t offset, uint64_t bytes) {
    return madvise(segment->base + offset, bytes, MADV_REMOVE) ? -errno : 0;
}
