/* replay.c: runs a fuzzer's entry point without libFuzzer, as an ordinary test: on every file of a
 * folder, then on mutations of each, which are the same in every run. Each input lies in a heap
 * block of exactly its size, so that sanitizers and valgrind see reads beyond it. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { MUTATIONS = 3000, MAX_EDITS = 4, PATH_BYTES = 4096 };

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

static void run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        abort();
    memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

/* Changes bytes, words and the length; numbers of interest are put in whole. */
static size_t mutate(uint8_t *data, size_t n, uint32_t *random)
{
    static const uint64_t numbers[] = {
        0,          1,          0x7f,        0xff,           0x7fff,    0x7fffffff,
        0x80000000, 0xffffffff, 0x100000000, UINT64_MAX / 2, UINT64_MAX};
    for (uint32_t i = 0, edits = 1 + next_random(random) % MAX_EDITS; i < edits && n; i++) {
        size_t at = next_random(random) % n;
        uint64_t number = numbers[next_random(random) % (sizeof numbers / sizeof *numbers)];
        size_t width = (size_t)1 << next_random(random) % 4;
        switch (next_random(random) % 4) {
        case 0:
            data[at] ^= (uint8_t)(1 << next_random(random) % 8);
            break;
        case 1:
            memcpy(data + at, &number, width < n - at ? width : n - at);
            break;
        case 2: /* a stretch from elsewhere */
            memmove(data + at, data + next_random(random) % (at + 1), n - at < 16 ? n - at : 16);
            break;
        default:
            if (next_random(random) % 4 == 0)
                n = at;
        }
    }
    return n;
}

static size_t replay_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        exit(1);
    }
    fseek(in, 0, SEEK_END);
    size_t n = (size_t)ftell(in);
    rewind(in);
    uint8_t *seed = malloc(n + 1), *work = malloc(n + 1);
    if (!seed || !work || fread(seed, 1, n, in) != n) {
        perror(path);
        exit(1);
    }
    fclose(in);
    run(seed, n);
    uint32_t random = 1;
    for (int i = 0; i < MUTATIONS; i++) {
        memcpy(work, seed, n);
        run(work, mutate(work, n, &random));
    }
    free(work);
    free(seed);
    return 1 + MUTATIONS;
}

int main(int argc, char **argv)
{
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    size_t runs = 0;
    if (!dir) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        if (e->d_name[0] != '.')
            runs += replay_file(path);
    }
    closedir(dir);
    printf("%zu inputs\n", runs);
    return runs == 0; /* an empty corpus tests nothing */
}
