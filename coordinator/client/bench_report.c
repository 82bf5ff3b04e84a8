/* bench_report.c: see bench_report.h. */
#include "bench_report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "check.h"
#include "json_out.h"
#include "table.h"

static const fr_bench_policy *find_policy(const fr_bench_report *r, const char *name)
{
    for (int i = 0; i < r->n_policies; i++)
        if (strcmp(r->policies[i].name, name) == 0)
            return &r->policies[i];
    return NULL;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

void fr_bench_sum_up(const fr_bench_report *r, int policy, fr_bench_sum *out)
{
    const fr_bench_policy *p = &r->policies[policy], *target = find_policy(r, "target");
    uint64_t drafted = 0, accepted = 0, passes = 0;
    int right = 0, identical = 0;
    double seconds = 0;
    *out = (fr_bench_sum){.wall_s = p->wall_s};
    for (int i = 0; i < r->n_problems; i++) {
        const fr_bench_result *x = &p->results[i];
        out->failed += x->text == NULL;
        right += x->right;
        out->chain_tokens += x->chain_tokens;
        drafted += x->drafted;
        accepted += x->accepted;
        passes += x->passes;
        seconds += x->seconds;
        identical += target && x->text && target->results[i].text &&
                     strcmp(x->text, target->results[i].text) == 0;
    }
    out->accuracy = ratio(right, r->n_problems);
    out->tok_s = ratio((double)out->chain_tokens, p->wall_s);
    out->accepted_share = ratio((double)accepted, (double)drafted);
    out->tokens_per_pass = ratio((double)out->chain_tokens, (double)passes);
    out->speedup = target ? ratio(target->wall_s, p->wall_s) : NAN;
    out->identical = target ? ratio(identical, r->n_problems) : NAN;
    out->mean_seconds = ratio(seconds, r->n_problems);
}

/* "-" for a value that does not exist. */
static const char *cell(char *out, size_t cap, const char *fmt, double v)
{
    if (isnan(v))
        snprintf(out, cap, "-");
    else
        snprintf(out, cap, fmt, v);
    return out;
}

fr_status fr_bench_print(const fr_bench_report *r)
{
    fr_table t = {0};
    fr_status st = fr_table_row(
        &t, "POLICY\tACCURACY\tWALL S\tTOKENS\tTOK/S\tACCEPTED\tTOK/PASS\tSPEED-UP\tIDENTICAL"
            "\tFAILED");
    for (int i = 0; st == FR_OK && i < r->n_policies; i++) {
        fr_bench_sum s;
        char a[16], b[16], c[16], d[16], e[16];
        fr_bench_sum_up(r, i, &s);
        st = fr_table_row(&t, "%s\t%s\t%.2f\t%" PRIu64 "\t%.1f\t%s\t%s\t%s\t%s\t%d",
                          r->policies[i].name, cell(a, sizeof a, "%.3f", s.accuracy), s.wall_s,
                          s.chain_tokens, s.tok_s, cell(b, sizeof b, "%.3f", s.accepted_share),
                          cell(c, sizeof c, "%.2f", s.tokens_per_pass),
                          cell(d, sizeof d, "%.2fx", s.speedup),
                          cell(e, sizeof e, "%.3f", s.identical), s.failed);
    }
    if (st == FR_OK)
        st = fr_table_print(&t);
    fr_table_free(&t);
    return st;
}

static fr_status fill_policy(const fr_bench_report *r, int policy, cJSON *o)
{
    fr_bench_sum s;
    fr_bench_sum_up(r, policy, &s);
    FR_TRY(fr_json_number(o, "accuracy", s.accuracy));
    FR_TRY(fr_json_number(o, "wall_s", s.wall_s));
    FR_TRY(fr_json_u64(o, "chain_tokens", s.chain_tokens));
    FR_TRY(fr_json_number(o, "tok_s", s.tok_s));
    FR_TRY(fr_json_number(o, "accepted_share", s.accepted_share));
    FR_TRY(fr_json_number(o, "tokens_per_pass", s.tokens_per_pass));
    FR_TRY(fr_json_number(o, "speedup", s.speedup));
    FR_TRY(fr_json_number(o, "identical_to_target", s.identical));
    FR_TRY(fr_json_number(o, "mean_seconds", s.mean_seconds));
    return fr_json_number(o, "failed", s.failed);
}

static fr_status fill_machine(const fr_bench_report *r, cJSON *o)
{
    FR_TRY(fr_json_text(o, "cpu", r->machine.cpu));
    FR_TRY(fr_json_number(o, "cores", r->machine.cores));
    FR_TRY(fr_json_number(o, "memory_gb", r->machine.memory_gb));
    FR_TRY(fr_json_number(o, "ranks", r->ranks));
    FR_TRY(fr_json_number(o, "threads", r->threads));
    cJSON *models = cJSON_AddObjectToObject(o, "models");
    if (!models)
        return fr_no_memory();
    FR_TRY(fr_json_text(models, "target", r->target));
    return fr_json_text(models, "draft", r->draft);
}

static fr_status fill_report(const fr_bench_report *r, cJSON *o)
{
    cJSON *policies = cJSON_AddObjectToObject(o, "policies");
    for (int i = 0; i < r->n_policies; i++) {
        cJSON *p = policies ? cJSON_AddObjectToObject(policies, r->policies[i].name) : NULL;
        if (!p)
            return fr_no_memory();
        FR_TRY(fill_policy(r, i, p));
    }
    FR_TRY(fr_json_text(o, "data", r->data));
    FR_TRY(fr_json_number(o, "limit", r->n_problems));
    FR_TRY(fr_json_number(o, "concurrency", r->concurrency));
    cJSON *machine = cJSON_AddObjectToObject(o, "machine");
    return machine ? fill_machine(r, machine) : fr_no_memory();
}

fr_status fr_bench_json(const fr_bench_report *r, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = fill_report(r, o);
    if (st != FR_OK)
        cJSON_Delete(o);
    else
        *out = o;
    return st;
}

static fr_status put_html(fr_buf *b, const char *text)
{
    for (; *text; text++) {
        const char *as = *text == '<'   ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : *text == '&' ? "&amp;"
                         : *text == '"' ? "&quot;"
                                        : NULL;
        FR_TRY(as ? fr_buf_put(b, as, strlen(as)) : fr_buf_put(b, text, 1));
    }
    return FR_OK;
}

static const char page_head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Forerun "
    "benchmark</title>\n<style>\n"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 "
    "1rem;color:#1c2530}\n"
    "table{border-collapse:collapse;width:100%}th,td{padding:.4rem .6rem;text-align:right;"
    "border-bottom:1px solid "
    "#dde3ea}\nth:first-child,td:first-child{text-align:left}th{font-weight:600;color:#5a6675}\n"
    ".bar{display:inline-block;height:.7rem;background:#3a7bd5;border-radius:2px;vertical-align:"
    "middle;"
    "margin-right:.5rem}\n.note{color:#5a6675}\n"
    "@media(prefers-color-scheme:dark){body{background:#12171d;color:#dbe2ea}th,td{border-color:#"
    "2b343f}}\n"
    "</style></head><body>\n<h1>Forerun benchmark</h1>\n";

static fr_status put_row(const fr_bench_report *r, int policy, double slowest_s, fr_buf *b)
{
    fr_bench_sum s;
    char c[5][16];
    fr_bench_sum_up(r, policy, &s);
    FR_TRY(fr_buf_printf(b, "<tr><td>"));
    FR_TRY(put_html(b, r->policies[policy].name));
    return fr_buf_printf(
        b,
        "</td><td><span class=\"bar\" style=\"width:%.0fpx\"></span>%.2f</td><td>%s</td><td>%s</td>"
        "<td>%.1f</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
        160 * s.wall_s / slowest_s, s.wall_s, cell(c[0], sizeof c[0], "%.2f&times;", s.speedup),
        cell(c[1], sizeof c[1], "%.3f", s.accuracy), s.tok_s,
        cell(c[2], sizeof c[2], "%.3f", s.accepted_share),
        cell(c[3], sizeof c[3], "%.2f", s.tokens_per_pass),
        cell(c[4], sizeof c[4], "%.3f", s.identical));
}

static fr_status put_page(const fr_bench_report *r, fr_buf *b)
{
    double slowest_s = 1e-9;
    for (int i = 0; i < r->n_policies; i++)
        if (r->policies[i].wall_s > slowest_s)
            slowest_s = r->policies[i].wall_s;
    FR_TRY(fr_buf_put(b, page_head, sizeof page_head - 1));
    FR_TRY(fr_buf_printf(b, "<p class=\"note\">%d problems of ", r->n_problems));
    FR_TRY(put_html(b, r->data));
    FR_TRY(fr_buf_printf(b, ", %d at once; ", r->concurrency));
    FR_TRY(put_html(b, r->machine.cpu));
    FR_TRY(fr_buf_printf(b, ", %d cores, %.0f GB; %d ranks; target ", r->machine.cores,
                         r->machine.memory_gb, r->ranks));
    FR_TRY(put_html(b, r->target[0] ? r->target : "of the cluster"));
    FR_TRY(fr_buf_printf(b, ", draft "));
    FR_TRY(put_html(b, r->draft[0] ? r->draft : "none or of the cluster"));
    FR_TRY(fr_buf_printf(
        b, "</p>\n<table><tr><th>policy</th><th>wall s</th><th>speed-up</th><th>accuracy</th>"
           "<th>tok/s</th><th>accepted</th><th>tok/pass</th><th>identical</th></tr>\n"));
    for (int i = 0; i < r->n_policies; i++)
        FR_TRY(put_row(r, i, slowest_s, b));
    return fr_buf_printf(b, "</table>\n</body></html>\n");
}

fr_status fr_bench_html(const fr_bench_report *r, const char *path)
{
    fr_buf page = {0};
    fr_status st = put_page(r, &page);
    if (st == FR_OK) {
        FILE *f = fopen(path, "we");
        int ok = f && fwrite(page.data, 1, page.len, f) == page.len;
        ok = f && fclose(f) == 0 && ok;
        if (!ok)
            st = fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    }
    fr_buf_free(&page);
    return st;
}

fr_status fr_bench_check_output(const char *path)
{
    int fresh = access(path, F_OK) != 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return fr_fail(FR_EINVAL, "%s: cannot be written: %s", path, strerror(errno));
    close(fd);
    if (fresh)
        unlink(path); /* a run that fails leaves no empty report */
    return FR_OK;
}
