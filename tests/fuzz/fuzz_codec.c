/* fuzz_codec.c: any bytes as a message. What can be decoded can be encoded again, and means the
 * same from then on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "fuzz.h"

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "line %d: %s; last cause: %s\n", __LINE__, #condition, fr_cause()); \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fr_msg m, again;
    fr_buf first = {0}, second = {0};
    fr_status st = fr_msg_decode(data, size, &m);
    CHECK(st == FR_OK || st == FR_EPROTO);
    if (st == FR_OK) {
        CHECK(fr_msg_encode(&m, &first) == FR_OK);
        CHECK(fr_msg_decode(first.data, first.len, &again) == FR_OK);
        CHECK(again.kind == m.kind && again.tag == m.tag);
        CHECK(fr_msg_encode(&again, &second) == FR_OK);
        CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
        fr_msg_free(&again);
    }
    fr_msg_free(&m);
    fr_buf_free(&first);
    fr_buf_free(&second);
    return 0;
}
