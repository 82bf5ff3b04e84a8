/* meta_writer.h: writes metadata and a tensor list as GGUF has them, in memory. A model folder (hf_folder.c) is put
 * into this form first, so that one parser and one set of look-ups serve both. Failure is out of memory. */
#ifndef FR_META_WRITER_H
#define FR_META_WRITER_H

#include "buf.h"
#include "model_file.h"

typedef struct fr_meta_writer {
    fr_buf meta, tensors;
    uint64_t n_meta, n_tensors;
} fr_meta_writer;

void fr_meta_writer_free(fr_meta_writer *w);

fr_status fr_meta_put_u32(fr_meta_writer *w, const char *key, uint32_t v);
fr_status fr_meta_put_f32(fr_meta_writer *w, const char *key, float v);
fr_status fr_meta_put_bool(fr_meta_writer *w, const char *key, int v);
fr_status fr_meta_put_str(fr_meta_writer *w, const char *key, fr_str v);
/* Begins an array of n elements; exactly n of fr_meta_add_str() or fr_meta_add_u32() follow. */
fr_status fr_meta_put_array(fr_meta_writer *w, const char *key, fr_meta_type element, uint64_t n);
fr_status fr_meta_add_str(fr_meta_writer *w, fr_str v);
fr_status fr_meta_add_u32(fr_meta_writer *w, uint32_t v);
/* dims in GGUF's order. The offset is 0: where the data lie is not the list's to say. */
fr_status fr_meta_put_tensor(fr_meta_writer *w, const char *name, fr_dtype dtype, int n_dims,
                             const int64_t *dims);

/* Appends the header: all that was put, ending with the tensor list. */
fr_status fr_meta_writer_finish(const fr_meta_writer *w, fr_buf *out);

#endif
