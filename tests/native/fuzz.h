/* fuzz.h - what the fuzzers share: bytes of an input as numbers, and a main() for compilers without libFuzzer.
 *
 * With any compiler: program SEED SECONDS CORPUS: replays the inputs of the corpus, one a line in hexadecimal, then runs random
 * mutations of them for so many seconds. With clang's libFuzzer: -DSX_LIBFUZZER; corpus.py unpacks a corpus into files and packs it.
 */
#ifndef SX_FUZZ_H
#define SX_FUZZ_H

#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *at, *end;
} input_t;

static uint8_t take_byte(input_t *input) {
    return input->at < input->end ? *input->at++ : 0;
}

static uint32_t take_two(input_t *input) {
    uint32_t low = take_byte(input);
    return low | (uint32_t)take_byte(input) << 8;
}

static uint64_t take_number(input_t *input) { /* small ones are likely; all are possible */
    uint8_t bytes = take_byte(input) % 9;
    uint64_t number = 0;
    for (uint8_t i = 0; i < bytes; i++)
        number |= (uint64_t)take_byte(input) << (8 * i);
    return number;
}

static size_t take_bytes(input_t *input, void *to, size_t most) {
    size_t left = (size_t)(input->end - input->at), count = left < most ? left : most;
    if (count)
        memcpy(to, input->at, count);
    input->at += count;
    return count;
}

static volatile uint64_t sum_of_all;
static void read_all(const void *bytes, uint64_t count) { /* the sanitizer sees it if they are not ours */
    const unsigned char *at = bytes;
    for (uint64_t i = 0; i < count; i++)
        sum_of_all += at[i];
}

#ifndef SX_LIBFUZZER

enum { LONGEST = 4096, MOST_INPUTS = 4096 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} entry_t;
static entry_t corpus[MOST_INPUTS];
static size_t inputs;

static void read_corpus(const char *path) {
    static char line[2 * LONGEST + 2];
    FILE *file = fopen(path, "r");
    CHECK(file, "no corpus %s", path);
    while (inputs < MOST_INPUTS && fgets(line, sizeof line, file)) {
        size_t size = strspn(line, "0123456789abcdef") / 2;
        uint8_t *bytes = malloc(size + 1);
        for (size_t i = 0; i < size; i++) {
            unsigned byte = 0;
            sscanf(line + 2 * i, "%2x", &byte);
            bytes[i] = (uint8_t)byte;
        }
        corpus[inputs++] = (entry_t){bytes, size};
    }
    fclose(file);
}

static size_t mutate(uint8_t *bytes, size_t size) {
    static const uint8_t odd[] = {0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 254, 255};
    for (uint32_t changes = 1 + rnd(6); changes-- > 0;) {
        size_t at = size ? rnd((uint32_t)size) : 0, left = size - at;
        switch (rnd(6)) {
        case 0:
            if (size)
                bytes[at] ^= (uint8_t)(1u << rnd(8));
            break;
        case 1:
            if (size)
                bytes[at] = odd[rnd(sizeof odd)];
            break;
        case 2:
            if (size)
                bytes[at] = (uint8_t)rnd(256);
            break;
        case 3: /* some more */
            if (size + 16 < LONGEST) {
                uint32_t more = 1 + rnd(16);
                memmove(bytes + at + more, bytes + at, left);
                for (uint32_t i = 0; i < more; i++)
                    bytes[at + i] = (uint8_t)rnd(256);
                size += more;
            }
            break;
        case 4: /* some less */
            if (left) {
                size_t less = 1 + rnd((uint32_t)(left < 16 ? left : 16));
                less = less < left ? less : left;
                memmove(bytes + at, bytes + at + less, left - less);
                size -= less;
            }
            break;
        default: /* the end of another */
            if (inputs) {
                entry_t other = corpus[rnd((uint32_t)inputs)];
                size_t from = other.size ? rnd((uint32_t)other.size) : 0, count = other.size - from;
                count = count < LONGEST - at ? count : LONGEST - at;
                memcpy(bytes + at, other.bytes + from, count);
                size = at + count > size ? at + count : size;
            }
        }
    }
    return size;
}

int main(int argc, char **argv) {
    uint64_t runs = 0;
    begin(argc, argv);
    if (argc > 3)
        read_corpus(argv[3]);
    for (size_t i = 0; i < inputs; i++)
        LLVMFuzzerTestOneInput(corpus[i].bytes, corpus[i].size);
    while (time_left()) {
        static uint8_t bytes[LONGEST];
        size_t size = 0;
        if (inputs) {
            entry_t from = corpus[rnd((uint32_t)inputs)];
            memcpy(bytes, from.bytes, size = from.size);
        }
        uint8_t *exact = malloc((size = mutate(bytes, size)) + 1); /* so that reading behind it is seen */
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        runs++;
    }
    printf("%zu inputs, %llu runs\n", inputs, (unsigned long long)runs);
    return 0;
}

#endif
#endif
