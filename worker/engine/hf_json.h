/* hf_json.h: the JSON files of a Hugging Face model folder, and typed look-ups in them. They are
 * untrusted input: every cause names file and key. A key whose value is null counts as absent. */
#ifndef FR_HF_JSON_H
#define FR_HF_JSON_H

#include <stdint.h>

#include "model_file.h"
#include "status.h"

struct cJSON;

/* An object of a file. Absent (an optional file that is not there, a child that is none): at is
 * NULL, and every look-up finds nothing in it. */
typedef struct fr_hf_object {
    const char *path; /* the file */
    const struct cJSON *at;
} fr_hf_object;

typedef struct fr_hf_json {
    char *path;
    struct cJSON *root;
} fr_hf_json;

/* Reads DIR/NAME, which must hold one object. An optional file that is not there leaves *out with
 * an absent root. Zero-initialise *out; fr_hf_json_free() also after a failure. */
fr_status fr_hf_json_read(const char *dir, const char *name, int optional, fr_hf_json *out);
void fr_hf_json_free(fr_hf_json *j);
fr_hf_object fr_hf_root(const fr_hf_json *j);

int fr_hf_has(fr_hf_object o, const char *key);
fr_hf_object fr_hf_child(fr_hf_object o, const char *key); /* absent unless an object */
/* These fail when the key is absent (FR_ENOTFOUND) or of another kind (FR_EFORMAT). */
fr_status fr_hf_u32(fr_hf_object o, const char *key, uint32_t *out);
fr_status fr_hf_double(fr_hf_object o, const char *key, double *out);
fr_status fr_hf_bool(fr_hf_object o, const char *key, int *out);
fr_status fr_hf_text(fr_hf_object o, const char *key, const char **out); /* borrowed */
/* The same for what may be absent; *out stays as it is then. */
fr_status fr_hf_optional_u32(fr_hf_object o, const char *key, uint32_t *out);
fr_status fr_hf_optional_double(fr_hf_object o, const char *key, double *out);
fr_status fr_hf_optional_bool(fr_hf_object o, const char *key, int *out);
fr_status fr_hf_optional_text(fr_hf_object o, const char *key, const char **out);
/* A value as a number of a token: 1, or 0 when it is none. */
int fr_hf_as_u32(const struct cJSON *value, uint32_t *out);

/* DIR/NAME, the caller's to free. */
fr_status fr_hf_path(const char *dir, const char *name, char **out);

#endif
