/* hf_json.c: see hf_json.h. */
#include "hf_json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "check.h"
#include "file_map.h"

#define LARGEST (64u << 20) /* a tokenizer.json has 11 MB */

fr_status fr_hf_path(const char *dir, const char *name, char **out)
{
    fr_buf path = {0};
    fr_status st = fr_buf_printf(&path, "%s/%s", dir, name);
    if (st != FR_OK)
        fr_buf_free(&path);
    else
        *out = (char *)path.data;
    return st;
}

static fr_status parse(const char *path, const fr_file_map *map, cJSON **out)
{
    const char *text = (const char *)map->base, *end = NULL;
    if (map->size > LARGEST)
        return fr_fail(FR_ELIMIT, "%s: %zu bytes, at most %u are read", path, map->size, LARGEST);
    cJSON *root = cJSON_ParseWithLengthOpts(text, map->size, &end, 0);
    while (root && end < text + map->size && strchr(" \t\r\n", *end))
        end++;
    if (!cJSON_IsObject(root) || end != text + map->size) {
        cJSON_Delete(root);
        return fr_fail(FR_EFORMAT, "%s: not one JSON object (at byte %zu)", path,
                       end ? (size_t)(end - text) : 0);
    }
    *out = root;
    return FR_OK;
}

fr_status fr_hf_json_read(const char *dir, const char *name, int optional, fr_hf_json *out)
{
    fr_file_map map = {0};
    FR_TRY(fr_hf_path(dir, name, &out->path));
    if (optional && access(out->path, F_OK) != 0)
        return FR_OK;
    FR_TRY(fr_file_map_open(out->path, &map));
    fr_status st = parse(out->path, &map, &out->root);
    fr_file_map_close(&map);
    return st;
}

void fr_hf_json_free(fr_hf_json *j)
{
    cJSON_Delete(j->root);
    free(j->path);
    *j = (fr_hf_json){0};
}

fr_hf_object fr_hf_root(const fr_hf_json *j)
{
    return (fr_hf_object){j->path, j->root};
}

/* --- look-ups --- */

static const cJSON *find(fr_hf_object o, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o.at, key);
    return cJSON_IsNull(value) ? NULL : value;
}

int fr_hf_has(fr_hf_object o, const char *key)
{
    return find(o, key) != NULL;
}

fr_hf_object fr_hf_child(fr_hf_object o, const char *key)
{
    const cJSON *value = find(o, key);
    return (fr_hf_object){o.path, cJSON_IsObject(value) ? value : NULL};
}

static fr_status need(fr_hf_object o, const char *key, const cJSON **out)
{
    *out = find(o, key);
    if (!*out)
        return fr_fail(FR_ENOTFOUND, "%s: %s is missing", o.path, key);
    return FR_OK;
}

static fr_status wrong_kind(fr_hf_object o, const char *key, const char *want)
{
    return fr_fail(FR_EFORMAT, "%s: %s is no %s", o.path, key, want);
}

int fr_hf_as_u32(const cJSON *value, uint32_t *out)
{
    double v = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (!(v >= 0 && v <= UINT32_MAX) || v != floor(v))
        return 0;
    *out = (uint32_t)v;
    return 1;
}

fr_status fr_hf_u32(fr_hf_object o, const char *key, uint32_t *out)
{
    const cJSON *value = NULL;
    FR_TRY(need(o, key, &value));
    return fr_hf_as_u32(value, out) ? FR_OK : wrong_kind(o, key, "whole number");
}

fr_status fr_hf_double(fr_hf_object o, const char *key, double *out)
{
    const cJSON *value = NULL;
    FR_TRY(need(o, key, &value));
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
        return wrong_kind(o, key, "number");
    *out = value->valuedouble;
    return FR_OK;
}

fr_status fr_hf_bool(fr_hf_object o, const char *key, int *out)
{
    const cJSON *value = NULL;
    FR_TRY(need(o, key, &value));
    if (!cJSON_IsBool(value))
        return wrong_kind(o, key, "true or false");
    *out = cJSON_IsTrue(value);
    return FR_OK;
}

fr_status fr_hf_text(fr_hf_object o, const char *key, const char **out)
{
    const cJSON *value = NULL;
    FR_TRY(need(o, key, &value));
    if (!cJSON_IsString(value))
        return wrong_kind(o, key, "text");
    *out = value->valuestring;
    return FR_OK;
}

fr_status fr_hf_optional_u32(fr_hf_object o, const char *key, uint32_t *out)
{
    return fr_hf_has(o, key) ? fr_hf_u32(o, key, out) : FR_OK;
}

fr_status fr_hf_optional_double(fr_hf_object o, const char *key, double *out)
{
    return fr_hf_has(o, key) ? fr_hf_double(o, key, out) : FR_OK;
}

fr_status fr_hf_optional_bool(fr_hf_object o, const char *key, int *out)
{
    return fr_hf_has(o, key) ? fr_hf_bool(o, key, out) : FR_OK;
}

fr_status fr_hf_optional_text(fr_hf_object o, const char *key, const char **out)
{
    return fr_hf_has(o, key) ? fr_hf_text(o, key, out) : FR_OK;
}
