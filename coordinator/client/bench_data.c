/* bench_data.c: see bench_data.h. */
#include "bench_data.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ui.h"

/* A text, or a number written as text (an answer may be either). */
static fr_status take_text(const cJSON *o, const char *key, char **out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    char number[32];
    if (cJSON_IsNumber(v))
        snprintf(number, sizeof number, "%.15g", v->valuedouble);
    else if (!cJSON_IsString(v) || !v->valuestring[0])
        return fr_fail(FR_EFORMAT, "no text \"%s\"", key);
    *out = strdup(cJSON_IsNumber(v) ? number : v->valuestring);
    return *out ? FR_OK : fr_no_memory();
}

static fr_status take_line(const char *line, size_t n, fr_problem *p)
{
    size_t bad = 0;
    if (!fr_ui_is_utf8(line, n, &bad))
        return fr_fail(FR_EFORMAT, "not UTF-8 text (byte %zu)", bad);
    cJSON *o = cJSON_ParseWithLength(line, n);
    if (!cJSON_IsObject(o)) {
        cJSON_Delete(o);
        return fr_fail(FR_EFORMAT, "not a JSON object");
    }
    fr_status st = take_text(o, "id", &p->id);
    if (st == FR_OK)
        st = take_text(o, "question", &p->question);
    if (st == FR_OK)
        st = take_text(o, "answer", &p->answer);
    cJSON_Delete(o);
    return st;
}

static fr_status add_line(fr_problems *p, int *cap, const char *line, size_t n)
{
    if (p->n == *cap) {
        int more = *cap ? *cap * 2 : 64;
        fr_problem *grown = realloc(p->data, (size_t)more * sizeof *grown);
        if (!grown)
            return fr_no_memory();
        p->data = grown;
        *cap = more;
    }
    p->data[p->n] = (fr_problem){0};
    return take_line(line, n,
                     &p->data[p->n++]); /* counted at once, so that half of one is freed too */
}

static fr_status read_lines(const char *path, FILE *f, int limit, fr_problems *p)
{
    char *line = NULL;
    size_t room = 0;
    int cap = 0;
    fr_status st = FR_OK;
    ssize_t n;
    for (int number = 1;
         st == FR_OK && (limit == 0 || p->n < limit) && (n = getline(&line, &room, f)) >= 0;
         number++) {
        if (strspn(line, " \t\r\n") == (size_t)n)
            continue;
        st = add_line(p, &cap, line, (size_t)n);
        if (st != FR_OK && st != FR_ENOMEM)
            st = fr_fail(st, "%s:%d: %s", path, number, fr_cause());
    }
    free(line);
    if (st == FR_OK && ferror(f))
        return fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    if (st == FR_OK && p->n == 0)
        return fr_fail(FR_EFORMAT, "%s: no problem in it", path);
    return st;
}

fr_status fr_problems_read(const char *path, int limit, fr_problems *out)
{
    fr_problems p = {0};
    FILE *f = fopen(path, "re");
    if (!f)
        return fr_fail(errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", path, strerror(errno));
    fr_status st = read_lines(path, f, limit, &p);
    fclose(f);
    if (st != FR_OK)
        fr_problems_free(&p);
    else
        *out = p;
    return st;
}

void fr_problems_free(fr_problems *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->data[i].id);
        free(p->data[i].question);
        free(p->data[i].answer);
    }
    free(p->data);
    *p = (fr_problems){0};
}
