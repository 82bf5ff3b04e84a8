/* codec_impl.h: what codec.c, codec_encode.c and codec_decode.c share. These three are the only
 * files that see protobuf-c. */
#ifndef FR_CODEC_IMPL_H
#define FR_CODEC_IMPL_H

#include "codec.h"
#include "codec_arena.h"
#include "forerun.pb-c.h"

/* Offset of the first byte that is not part of valid UTF-8, or n. */
size_t fr_utf8_valid(const char *text, size_t n);

/* m's body into env, whose sub-structs are taken from the arena or borrowed from m. */
fr_status fr_codec_encode_body(const fr_msg *m, Forerun__Envelope *env, fr_arena *a);
/* env's body into m, whose arrays of structs are taken from the arena and whose texts and numbers
 * stay env's. */
fr_status fr_codec_decode_body(const Forerun__Envelope *env, fr_msg *m, fr_arena *a);

#endif
