/* fuzz_safetensors.c: any bytes as a safetensors file; when its header is taken, everything it
 * offers is read. */
#include "fuzz.h"
#include "safetensors.h"

static volatile unsigned sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fr_safetensors s = {0};
    if (fr_safetensors_parse("fuzz", data, size, &s) != FR_OK)
        return 0;
    for (size_t i = 0; i < s.n; i++) {
        const fr_safetensor *t = &s.tensors[i];
        sink += (unsigned)t->name.data[0] + (unsigned)t->type[0] +
                (unsigned)(fr_safetensors_find(&s, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++)
            sink += t->data[k];
    }
    fr_safetensors_free(&s);
    return 0;
}
