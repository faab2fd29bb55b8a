/* report.c - a sequence lock over a small record; see report.h. */
#include "report.h"

#include <errno.h>
#include <string.h>

#define ATTEMPTS 100

static uint64_t bits(double value) {
    uint64_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

void sx_report_write(sx_report_t *report, const sx_reported_t *said) {
    uint64_t sequence = sx_load_relaxed(&report->sequence); /* our own */
    uint64_t words[SX_REPORT_BYTES / 8];
    memcpy(words, said->text, sizeof words);
    SX_STEP();
    sx_store_relaxed(&report->sequence, sequence + 1);
    atomic_thread_fence(memory_order_release); /* SYNC POINT report: whoever sees a word below sees the odd number, too */
    SX_STEP();
    sx_store_relaxed(&report->call, said->call);
    SX_STEP();
    sx_store_relaxed(&report->item, said->item);
    SX_STEP();
    sx_store_relaxed(&report->fraction, bits(said->fraction));
    SX_STEP();
    sx_store_relaxed(&report->length, (uint64_t)said->text_is_newer << 8 | said->length);
    for (uint32_t i = 0; i * 8 < said->length; i++) {
        SX_STEP();
        sx_store_relaxed(&report->text[i], words[i]);
    }
    SX_STEP();
    sx_store_release(&report->sequence, sequence + 2); /* SYNC POINT report */
}

int sx_report_read(sx_report_t *report, sx_reported_t *said) {
    uint64_t words[SX_REPORT_BYTES / 8] = {0};
    for (int i = 0; i < ATTEMPTS; i++) {
        uint64_t sequence = sx_load_acquire(&report->sequence); /* SYNC POINT report */
        if (sequence % 2) {
            sx_relax();
            continue;
        }
        uint64_t fraction = sx_load_relaxed(&report->fraction), length = sx_load_relaxed(&report->length);
        said->call = sx_load_relaxed(&report->call);
        said->item = sx_load_relaxed(&report->item);
        said->length = (uint32_t)(length % 256);
        said->text_is_newer = (uint32_t)(length >> 8) & 1;
        if (said->length > SX_REPORT_BYTES) /* torn, or a stray write */
            said->length = SX_REPORT_BYTES;
        for (uint32_t word = 0; word * 8 < said->length; word++)
            words[word] = sx_load_relaxed(&report->text[word]);
        atomic_thread_fence(memory_order_acquire); /* SYNC POINT report: a word that is newer comes with its odd number */
        if (sx_load_relaxed(&report->sequence) != sequence)
            continue;
        memcpy(&said->fraction, &fraction, sizeof fraction);
        memcpy(said->text, words, sizeof words);
        return 0;
    }
    return -EAGAIN;
}
