/* report.h - what a task says of how far it has come: one record a worker, in its channel.
 *
 * Purpose: a task reports as often as it likes, for the price of some stores; who wants to know looks.
 * Guarantees
 *   R1  a reader gets a record that was written as a whole, or -EAGAIN: one that is being written, or whose writer died in it
 *   R2  nobody waits: the writer never, the reader after a few attempts no more; nobody is woken
 * Assumptions: one thread of the worker writes at a time (it has the GIL), whoever likes reads.
 *
 * A sequence lock: SYNC POINT report = the sequence is odd while the words change, and even and two higher afterwards. The words
 * are atomic, so that a reader that comes in between reads something old or new and finds out that it did.
 */
#ifndef SX_REPORT_H
#define SX_REPORT_H

#include "atomics.h"

#define SX_REPORT_BYTES 152 /* of text */

typedef struct {
    sx_atomic64_t sequence;
    sx_atomic64_t call;     /* the number of the call that it is of; 0: nothing was ever reported */
    sx_atomic64_t item;     /* of a chunk or a span: which of its items */
    sx_atomic64_t fraction; /* the bits of a double; not a number: none was reported */
    sx_atomic64_t length;   /* [1: the text is newer than the fraction, above | bytes of the text: 8] */
    sx_atomic64_t text[SX_REPORT_BYTES / 8];
} sx_report_t;

/* The same, as one side has it by itself. */
typedef struct {
    uint64_t call, item;
    double fraction;
    uint32_t length, text_is_newer;
    char text[SX_REPORT_BYTES];
} sx_reported_t;

void sx_report_write(sx_report_t *report, const sx_reported_t *said);
int sx_report_read(sx_report_t *report, sx_reported_t *said);

#endif
