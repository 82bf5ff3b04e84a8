/* hf_tensors.h: the tensors of a model folder under the names that GGUF files have for them, with
 * their shapes checked against config.json. */
#ifndef FR_HF_TENSORS_H
#define FR_HF_TENSORS_H

#include "hf_config.h"
#include "safetensors.h"

enum { FR_HF_NAME_BYTES = 64 };

/* GGUF's name for tensor t of `file`; "" for one that no family needs (what other programs kept
 * there). FR_EUNSUPPORTED for a tensor or a type that Forerun does not know, FR_EFORMAT for a shape
 * other than config.json's: the cause names the tensor and both shapes. */
fr_status fr_hf_tensor_name(const fr_hf_shape *shape, const char *file, const fr_safetensor *t,
                            char out[FR_HF_NAME_BYTES]);

/* FR_ENOTFOUND names, as publishers do, the first tensor that the family needs and `has` lacks. */
typedef int fr_hf_has_tensor(const void *arg, const char *name); /* by GGUF's name */
fr_status fr_hf_tensors_complete(const fr_hf_shape *shape, const char *folder,
                                 fr_hf_has_tensor *has, const void *arg);

#endif
