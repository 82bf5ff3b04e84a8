/* hf_fixture.h: a temporary folder of its own for each test, and models in it (hf_writer.h) as they open. What fails
 * here fails the test. */
#ifndef HF_FIXTURE_H
#define HF_FIXTURE_H

#include "hf_writer.h"
#include "model_file.h"

extern char hf_folder[];         /* its path; until hf_folder_empty() a template */
extern const hf_model hf_plain; /* a model that opens */

/* For a group of tests, and before each. */
int hf_folder_make(void **state);
int hf_folder_empty(void **state);
int hf_folder_remove(void **state);

/* What lies at the folder's path with `name` behind it. */
fr_model_file *hf_open_path(const char *name);
/* Writes the model into the folder and opens that. */
fr_model_file *hf_open_model(const hf_model *m);
/* Replaces the first `from` in the file by `to`. */
void hf_change(const char *file, const char *from, const char *to);

#endif
