/* frame.h: the frame around a message: "FRN", one byte protocol version, the body's length (u32,
 * little-endian), then the body. Pure functions over untrusted bytes; link.c puts frames on
 * sockets. */
#ifndef FR_FRAME_H
#define FR_FRAME_H

#include "buf.h"
#include "status.h"

#define FR_FRAME_HEADER 8

/* Finds the body of a frame of n bytes; borrowed. FR_EPROTO names what is wrong: too long
 * (max_frame), not ours, another version, a length that does not fit. */
fr_status fr_frame_parse(const void *data, size_t n, size_t max_frame, const uint8_t **body_out,
                         size_t *body_len_out);
/* Appends a header for a body not written yet, and completes it when the body is in place. */
fr_status fr_frame_begin(fr_buf *out);
/* `start`: out->len before fr_frame_begin(). FR_ELIMIT for a frame over max_frame. */
fr_status fr_frame_end(fr_buf *out, size_t start, size_t max_frame);

#endif
