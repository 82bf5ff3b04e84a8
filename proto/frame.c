/* frame.c: see frame.h. */
#include "frame.h"

#include <string.h>

#include "check.h"
#include "link.h"

static const uint8_t magic[3] = {'F', 'R', 'N'};

fr_status fr_frame_parse(const void *data, size_t n, size_t max_frame, const uint8_t **body_out,
                         size_t *body_len_out)
{
    const uint8_t *p = data;
    if (n < FR_FRAME_HEADER || memcmp(p, magic, sizeof magic) != 0)
        return fr_fail(FR_EPROTO, "a frame of %zu bytes that is not Forerun's", n);
    if (p[3] != FR_LINK_VERSION)
        return fr_fail(FR_EPROTO, "peer speaks protocol %d, this is %d", p[3], FR_LINK_VERSION);
    if (n > max_frame)
        return fr_fail(FR_EPROTO, "a frame of %zu bytes is over the limit of %zu", n, max_frame);
    fr_reader r = {p + 4, p + n, "frame"};
    uint32_t len = 0;
    FR_TRY(fr_read_u32(&r, &len));
    if (len != n - FR_FRAME_HEADER)
        return fr_fail(FR_EPROTO, "a frame of %zu bytes says that its body has %u", n, len);
    *body_out = r.at;
    *body_len_out = len;
    return FR_OK;
}

fr_status fr_frame_begin(fr_buf *out)
{
    FR_TRY(fr_buf_put(out, magic, sizeof magic));
    FR_TRY(fr_buf_put(out, &(uint8_t){FR_LINK_VERSION}, 1));
    return fr_buf_put_u32(out, 0);
}

fr_status fr_frame_end(fr_buf *out, size_t start, size_t max_frame)
{
    size_t n = out->len - start, len = n - FR_FRAME_HEADER;
    if (n > max_frame || len > UINT32_MAX)
        return fr_fail(FR_ELIMIT, "a message of %zu bytes is over the limit of %zu", n, max_frame);
    for (int i = 0; i < 4; i++)
        out->data[start + 4 + i] = (uint8_t)(len >> (8 * i));
    return FR_OK;
}
