/* fuzz_link_frame.c: any bytes as a frame, as they come from a socket. */
#include <stdio.h>
#include <stdlib.h>

#include "codec.h"
#include "frame.h"
#include "fuzz.h"

#define MAX_FRAME 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *body = NULL;
    size_t n = 0;
    fr_msg m;
    fr_status st = fr_frame_parse(data, size, MAX_FRAME, &body, &n);
    if (st != FR_OK && st != FR_EPROTO)
        abort();
    if (st != FR_OK)
        return 0;
    if (size > MAX_FRAME || body != data + FR_FRAME_HEADER || n != size - FR_FRAME_HEADER) {
        fprintf(stderr, "a body of %zu bytes in a frame of %zu\n", n, size);
        abort();
    }
    if (fr_msg_decode(body, n, &m) == FR_OK)
        fr_msg_free(&m);
    return 0;
}
