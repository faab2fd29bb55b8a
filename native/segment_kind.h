/* segment_kind.h - what a kind of segment is to segment.c: a table of functions. All return 0 or -errno. */
#ifndef SX_SEGMENT_KIND_H
#define SX_SEGMENT_KIND_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "segment.h"

#include <errno.h>
#include <sys/types.h>

typedef void (*sx_visit_t)(void *context, int kind, const char *name);

typedef struct {
    const char *name;
    const char *prefix; /* that its kernel names begin with */
    int is_file;        /* `number` is a descriptor */
    int (*create)(sx_segment_t *segment);          /* of segment->bytes; sets number */
    int (*settle)(const sx_segment_t *segment);    /* it is mapped: what makes it safe and, if that is possible, nameless */
    int (*open)(sx_segment_t *segment, const char *name, int readonly); /* sets number */
    int (*peek)(sx_segment_t *segment, sx_header_t *header);            /* sets bytes; what it begins with, without mapping it */
    int (*map)(const sx_segment_t *segment, char *at, int readonly);    /* over the reserved addresses */
    int (*touch)(const sx_segment_t *segment, uint64_t offset);         /* backs the small page there; may write a zero there */
    int (*reserve)(const sx_segment_t *segment, uint64_t offset, uint64_t bytes);
    uint64_t (*resident)(const sx_segment_t *segment);
    uint64_t (*room)(const sx_segment_t *segment);
    int (*name_of)(const sx_segment_t *segment, char text[SX_NAME_BYTES]);
    void (*unlink)(const sx_segment_t *segment);
    void (*close)(const sx_segment_t *segment);
    void (*each)(sx_visit_t visit, void *context);
    void (*sweep)(sx_visit_t visit, void *context);
} sx_kind_t;

extern const sx_kind_t sx_memfd_kind, sx_sysv_kind, sx_posix_kind;

/* ---- for kinds that are files (segment_file.c) --------------------------------------------------------------------------- */

int sx_file_peek(sx_segment_t *segment, sx_header_t *header);
int sx_file_map(const sx_segment_t *segment, char *at, int readonly);
int sx_file_touch(const sx_segment_t *segment, uint64_t offset);
int sx_file_reserve(const sx_segment_t *segment, uint64_t offset, uint64_t bytes);
uint64_t sx_file_resident(const sx_segment_t *segment);
void sx_file_close(const sx_segment_t *segment);
/* The inode, if the descriptor is a regular file of this user; -EACCES, or -ESTALE if it is something else. */
int sx_file_inode(int fd, uint64_t *inode);
/* Splits "where:inode"; -EINVAL. */
int sx_file_split(const char *name, char where[SX_NAME_BYTES], uint64_t *inode);
void sx_file_each_open(const char *link, int kind, sx_visit_t visit, void *context); /* descriptors that are links to this and more */

/* Backs pages that are mapped, where nothing better is to be had: the kernel adds 0 to a word of each. -ENOMEM instead of a SIGBUS. */
int sx_touch_mapped(const sx_segment_t *segment, uint64_t offset, uint64_t bytes);

#endif
