/* hf_tokenizer.h: a model folder's tokenizer as GGUF metadata (tokenizer_load.c reads that):
 * byte-level BPE with one of the split expressions of pretokenize.h. */
#ifndef FR_HF_TOKENIZER_H
#define FR_HF_TOKENIZER_H

#include "hf_json.h"
#include "meta_writer.h"

typedef struct fr_hf_tokenizer_files {
    fr_hf_object tokenizer;  /* tokenizer.json */
    fr_hf_object settings;   /* tokenizer_config.json; may be absent */
    fr_hf_object config;     /* config.json */
    fr_hf_object generation; /* generation_config.json; may be absent */
    fr_str chat_template;    /* chat_template.jinja; data NULL: there is none */
} fr_hf_tokenizer_files;

/* n_vocab: the rows of the embedding. FR_EUNSUPPORTED, FR_EFORMAT, FR_ENOTFOUND; the cause names
 * the file. */
fr_status fr_hf_tokenizer_put(const fr_hf_tokenizer_files *files, int64_t n_vocab,
                              fr_meta_writer *w);

#endif
