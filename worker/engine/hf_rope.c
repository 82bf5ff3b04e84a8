/* hf_rope.c: see hf_rope.h. config.json has rope_theta and rope_scaling side by side, or, in newer
 * files, both in rope_parameters. Every scaling of frequencies becomes factors that they are
 * divided by, as GGUF files carry them in rope_freqs.weight. (Source of the formulas: Hugging Face
 * transformers, modeling_rope_utils.py; YaRN: Peng et al., arXiv 2309.00071.) */
#include "hf_rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MOST_YARN_FACTOR = 1 << 20 };

/* A number of the scaling that a formula divides by, or takes the logarithm of. */
static fr_status read_positive(fr_hf_object o, const char *key, double *out)
{
    FR_TRY(fr_hf_double(o, key, out));
    if (*out <= 0)
        return fr_fail(FR_EFORMAT, "%s: %s is %g, want a positive number", o.path, key, *out);
    return FR_OK;
}

/* Wavelengths beyond the trained context are stretched whole, short ones not at all, those between
 * by degrees. */
static fr_status llama3_factors(fr_hf_object o, double base, int n_rot, float *factors)
{
    double factor, low, high, context;
    FR_TRY(read_positive(o, "factor", &factor));
    FR_TRY(read_positive(o, "low_freq_factor", &low));
    FR_TRY(read_positive(o, "high_freq_factor", &high));
    FR_TRY(read_positive(o, "original_max_position_embeddings", &context));
    if (low >= high)
        return fr_fail(FR_EFORMAT, "%s: low_freq_factor is not below high_freq_factor", o.path);
    for (int i = 0; i < n_rot / 2; i++) {
        double wavelength = 2 * M_PI * pow(base, 2.0 * i / n_rot), turns = context / wavelength;
        double kept = turns > high ? 1 : turns < low ? 0 : (turns - low) / (high - low);
        factors[i] = (float)(1 / ((1 - kept) / factor + kept));
    }
    return FR_OK;
}

/* The pair that makes `turns` turns within the context, as a real number. */
static double yarn_pair(double turns, double base, int n_rot, double context)
{
    return n_rot * log(context / (turns * 2 * M_PI)) / (2 * log(base));
}

static fr_status yarn_factors(fr_hf_object o, int n_rot, uint32_t max_context, fr_hf_rope *r)
{
    double factor, context = max_context, fast = 32, slow = 1, extra = 1;
    FR_TRY(fr_hf_double(o, "factor", &factor));
    if (!(factor >= 1 && factor <= MOST_YARN_FACTOR))
        return fr_fail(FR_EFORMAT, "%s: rope scaling yarn: factor is %g, want 1 to %d", o.path, factor,
                       MOST_YARN_FACTOR);
    FR_TRY(fr_hf_optional_double(o, "original_max_position_embeddings", &context));
    FR_TRY(fr_hf_optional_double(o, "beta_fast", &fast));
    FR_TRY(fr_hf_optional_double(o, "beta_slow", &slow));
    FR_TRY(fr_hf_optional_double(o, "attn_factor", &extra));
    if (context < 1 || fast <= 0 || slow <= 0 || r->base <= 1)
        return fr_fail(FR_EFORMAT, "%s: rope scaling yarn: a number is out of range", o.path);
    if (fr_hf_has(o, "mscale") || fr_hf_has(o, "mscale_all_dim"))
        return fr_fail(FR_EUNSUPPORTED, "%s: rope scaling yarn with mscale is not supported",
                       o.path);
    double magnitude = (0.1 * log(factor) + 1) * extra;
    FR_TRY(fr_hf_optional_double(o, "attention_factor", &magnitude));
    r->magnitude = (float)magnitude;
    double low = fmax(floor(yarn_pair(fast, r->base, n_rot, context)), 0);
    double high = fmin(ceil(yarn_pair(slow, r->base, n_rot, context)), n_rot - 1);
    for (int i = 0; i < n_rot / 2; i++) {
        double ramp = (i - low) / (high == low ? 0.001 : high - low);
        double stretched = fmin(fmax(ramp, 0), 1);
        r->factors[i] = (float)(1 / (stretched / factor + (1 - stretched)));
    }
    return FR_OK;
}

static fr_status read_scaling(fr_hf_object o, const char *type, int n_rot, uint32_t context,
                              fr_hf_rope *r)
{
    char show[FR_SHOW_BYTES];
    if (strcmp(type, "default") == 0)
        return FR_OK;
    if (strcmp(type, "linear") == 0) {
        double factor = 1;
        FR_TRY(read_positive(o, "factor", &factor));
        r->linear = (float)factor;
        return FR_OK;
    }
    int is_llama3 = strcmp(type, "llama3") == 0;
    if (!is_llama3 && strcmp(type, "yarn") != 0)
        return fr_fail(FR_EUNSUPPORTED,
                       "%s: rope scaling %s is not supported (default, linear, llama3, yarn)",
                       o.path, fr_str_show(fr_str_of(type), show));
    r->factors = calloc((size_t)n_rot / 2, sizeof *r->factors);
    if (!r->factors)
        return fr_no_memory();
    return is_llama3 ? llama3_factors(o, r->base, n_rot, r->factors)
                     : yarn_factors(o, n_rot, context, r);
}

/* Absent where there is none: one of another kind must not be taken for that. */
static fr_status read_object(fr_hf_object config, const char *key, fr_hf_object *out)
{
    *out = fr_hf_child(config, key);
    if (!out->at && fr_hf_has(config, key))
        return fr_fail(FR_EFORMAT, "%s: %s is no object", config.path, key);
    return FR_OK;
}

fr_status fr_hf_rope_read(fr_hf_object config, int n_rot, uint32_t context, fr_hf_rope *out)
{
    fr_hf_object nested, scaling;
    FR_TRY(read_object(config, "rope_parameters", &nested));
    FR_TRY(read_object(config, "rope_scaling", &scaling));
    if (nested.at)
        scaling = nested;
    fr_hf_object with_base = fr_hf_has(nested, "rope_theta") ? nested : config;
    const char *type = "default";
    double base = 10000;
    fr_hf_rope r = {.linear = 1, .magnitude = 1};
    if (fr_hf_has(with_base, "rope_theta"))
        FR_TRY(read_positive(with_base, "rope_theta", &base));
    r.base = (float)base;
    FR_TRY(fr_hf_optional_text(scaling, "type", &type)); /* the older name */
    FR_TRY(fr_hf_optional_text(scaling, "rope_type", &type));
    fr_status st = read_scaling(scaling, type, n_rot, context, &r);
    if (st != FR_OK)
        free(r.factors);
    else
        *out = r;
    return st;
}
