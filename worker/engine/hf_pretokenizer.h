/* hf_pretokenizer.h: which of the known split expressions (pretokenize.h) a tokenizer.json has. */
#ifndef FR_HF_PRETOKENIZER_H
#define FR_HF_PRETOKENIZER_H

#include "hf_json.h"

/* The name that GGUF files have for them ("qwen2"). FR_EUNSUPPORTED names a step that is not
 * known. */
fr_status fr_hf_pretokenizer(fr_hf_object tokenizer, const char **out);

#endif
