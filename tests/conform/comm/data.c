/* data.c: bytes to be carried, and what becomes of them. */
#include "suite.h"

#include <stdlib.h>

void *must_alloc(size_t bytes)
{
    void *p = calloc(1, bytes);
    CHECK(p, "%zu bytes", bytes);
    return p;
}

void fill(uint8_t *data, size_t bytes, int salt)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 31 + (size_t)salt * 97 + (i >> 8));
}

void check_filled(const uint8_t *data, size_t bytes, int salt)
{
    for (size_t i = 0; i < bytes; i++)
        CHECK(data[i] == (uint8_t)(i * 31 + (size_t)salt * 97 + (i >> 8)),
              "byte %zu of %zu is %d, salt %d", i, bytes, data[i], salt);
}
