/* answer.c: see answer.h. Normalising is a row of passes over one buffer, each of which can only
 * shorten it. */
#include "answer.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

/* ---- finding the answer ---- */

static int digit(char c)
{
    return c >= '0' && c <= '9';
}

static int letter(char c)
{
    return isalpha((unsigned char)c) && !((unsigned char)c & 0x80);
}

/* Length of the group whose contents begin at s[0], just behind its '{'; -1 when it is never
 * closed. */
static long group_length(const char *s, size_t n)
{
    int depth = 1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\\' && i + 1 < n && (s[i + 1] == '{' || s[i + 1] == '}'))
            i++;
        else if (s[i] == '{')
            depth++;
        else if (s[i] == '}' && --depth == 0)
            return (long)i;
    }
    return -1;
}

/* Length of the number that begins at s[i] (a digit, or a point before one). */
static size_t number_length(const char *s, size_t n, size_t i)
{
    size_t at = i;
    while (at < n && digit(s[at]))
        at++;
    while (at + 3 < n && s[at] == ',' && digit(s[at + 1]) && digit(s[at + 2]) && digit(s[at + 3]) &&
           (at + 4 == n || !digit(s[at + 4])))
        at += 4;
    if (at + 1 < n && s[at] == '.' && digit(s[at + 1]))
        for (at++; at < n && digit(s[at]);)
            at++;
    if (at + 1 < n && s[at] == '/' && digit(s[at + 1]))
        for (at++; at < n && digit(s[at]);)
            at++;
    return at - i;
}

/* A minus in front of s[i], as ASCII or as U+2212, that belongs to the number: its length in
 * bytes. */
static size_t sign_length(const char *s, size_t i)
{
    size_t k = 0;
    if (i >= 1 && s[i - 1] == '-')
        k = 1;
    else if (i >= 3 && memcmp(s + i - 3, "\xe2\x88\x92", 3) == 0)
        k = 3;
    if (k == 0 || i == k)
        return k;
    char before = s[i - k - 1];
    return digit(before) || letter(before) || before == ')' ? 0 : k;
}

static const char *last_number(const char *s, size_t n, size_t *n_out)
{
    const char *found = NULL;
    for (size_t i = 0; i < n;) {
        if (!digit(s[i]) && !(s[i] == '.' && i + 1 < n && digit(s[i + 1]))) {
            i++;
            continue;
        }
        size_t k = number_length(s, n, i), sign = sign_length(s, i);
        found = s + i - sign;
        *n_out = k + sign;
        i += k;
    }
    return found;
}

/* Read from the back, so that a text of nothing but groups never closed takes one pass. */
static const char *last_boxed(const char *s, size_t n, size_t *n_out)
{
    static const char open[] = "\\boxed{";
    const size_t k = sizeof open - 1;
    size_t closing = 0; /* braces further on that still close something */
    for (size_t end = n; end > 0; end--) {
        char brace = s[end - 1];
        if ((brace != '{' && brace != '}') || (end > 1 && s[end - 2] == '\\'))
            continue;
        if (brace == '}') {
            closing++;
        } else if (closing > 0) {
            closing--;
            if (end >= k && memcmp(s + end - k, open, k) == 0) {
                *n_out = (size_t)group_length(s + end, n - end);
                return s + end;
            }
        }
    }
    return NULL;
}

fr_status fr_answer_extract(const char *text, size_t n, fr_buf *out)
{
    size_t k = 0;
    const char *found = n ? last_boxed(text, n, &k) : NULL;
    if (!found && n)
        found = last_number(text, n, &k);
    for (; found && k && isspace((unsigned char)*found); found++)
        k--;
    for (; found && k && isspace((unsigned char)found[k - 1]);)
        k--;
    FR_TRY(fr_buf_reserve(out, k + 1));
    if (found)
        memcpy(out->data + out->len, found, k);
    out->len += k;
    out->data[out->len] = 0;
    return FR_OK;
}

/* ---- normalising ---- */

/* Replaces every `what` by `by`, which is no longer. A command (\left) must not go on with a
 * letter (\leftarrow). */
static void replace(char *s, const char *what, const char *by)
{
    size_t n = strlen(what), m = strlen(by);
    char *to = s;
    for (const char *from = s; *from;) {
        int command = what[0] == '\\' && letter(what[n - 1]);
        if (strncmp(from, what, n) == 0 && !(command && letter(from[n]))) {
            memcpy(to, by, m);
            to += m;
            from += n;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
}

static void replace_marks(char *s)
{
    static const char *const table[][2] = {
        {"\\left", ""}, {"\\right", ""}, {"\\displaystyle", ""}, {"\\!", ""}, {"\\,", ""},
        {"\\;", ""}, {"\\:", ""}, {"\\ ", " "}, {"\\quad", " "}, {"~", " "}, {"\\(", ""},
        {"\\)", ""}, {"\\[", ""}, {"\\]", ""}, {"\\$", ""}, {"$", ""}, {"\xe2\x82\xac", ""},
        {"\xc2\xa3", ""}, {"\\%", ""}, {"%", ""}, {"^\\circ", ""}, {"^{\\circ}", ""},
        {"\\degree", ""}, {"\xc2\xb0", ""}, {"\xe2\x88\x92", "-"}, {"\\dfrac", "\\frac"},
        {"\\tfrac", "\\frac"}, {"\\cfrac", "\\frac"}, {"**", ""}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        replace(s, table[i][0], table[i][1]);
}

static void cut_out(char *at, size_t n)
{
    memmove(at, at + n, strlen(at + n) + 1);
}

/* Units stand in \text{...}: they go, unless nothing else is there; then the words are the
 * answer. */
static void unwrap_text(char *s)
{
    static const char *const commands[] = {"\\text{", "\\mathrm{", "\\textbf{",
                                           "\\mbox{", "\\mathbf{", "\\textit{"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        size_t k = strlen(commands[i]);
        for (char *at; (at = strstr(s, commands[i])) != NULL;) {
            long n = group_length(at + k, strlen(at + k));
            if (n < 0)
                break;
            size_t before = strspn(s, " "), rest = strspn(at + k + n + 1, " ");
            int alone = s + before == at && at[k + (size_t)n + 1 + rest] == 0;
            if (alone) {
                at[k + (size_t)n] = ' ';
                cut_out(at, k);
            } else {
                cut_out(at, k + (size_t)n + 1);
            }
        }
    }
}

static void drop_thousands(char *s)
{
    for (char *at = s; *at;) {
        int after_digit = at > s && digit(at[-1]);
        if (*at == ',' && after_digit && digit(at[1]) && digit(at[2]) && digit(at[3]) &&
            !digit(at[4]))
            cut_out(at, 1);
        else
            at++;
    }
}

/* "18 eggs a day" is 18: words of two letters or more behind a number are its unit. "2 x" and "2
 * pi" are products. */
static void drop_unit(char *s)
{
    size_t at = strspn(s, " "), begin = at;
    at += s[at] == '-' || s[at] == '+';
    at += number_length(s, strlen(s), at);
    size_t gap = strspn(s + at, " "), word = 0;
    if (at == begin || !digit(s[at - 1]) || gap == 0)
        return;
    const char *unit = s + at + gap;
    while (letter(unit[word]))
        word++;
    int product = word < 2 || (word == 2 && strncmp(unit, "pi", 2) == 0) ||
                  strncmp(unit, "or ", 3) == 0 || strncmp(unit, "and ", 4) == 0;
    for (const char *c = unit; *c; c++)
        if (!letter(*c) && *c != ' ' && *c != '.' && *c != '/')
            return;
    if (!product)
        s[at] = 0;
}

/* The argument at *at: a group or one character. Advances behind it; 0 when there is none. */
static int frac_argument(char **at, const char **begin_out, size_t *n_out)
{
    if (**at == '{') {
        long n = group_length(*at + 1, strlen(*at + 1));
        if (n < 0)
            return 0;
        *begin_out = *at + 1;
        *n_out = (size_t)n;
        *at += n + 2;
        return 1;
    }
    *begin_out = *at;
    *n_out = 1;
    return *(*at)++ != 0;
}

static char *put_argument(char *to, const char *s, size_t n)
{
    int plain = 1;
    for (size_t i = 0; i < n; i++)
        plain &= digit(s[i]) || letter(s[i]) || s[i] == '.';
    if (!plain)
        *to++ = '(';
    memcpy(to, s, n);
    to += n;
    if (!plain)
        *to++ = ')';
    return to;
}

/* \frac{a}{b} becomes a/b, the innermost first. */
static void rewrite_fractions(char *s)
{
    for (int left = 16; left > 0; left--) {
        char *at = NULL;
        for (char *next = s; (next = strstr(next, "\\frac")) != NULL; next++)
            at = next;
        if (!at)
            return;
        char *end = at + 5, part[FR_ANSWER_MAX];
        const char *a = NULL, *b = NULL;
        size_t n_a = 0, n_b = 0;
        if (!frac_argument(&end, &a, &n_a) || !frac_argument(&end, &b, &n_b))
            return;
        char *to = put_argument(part, a, n_a);
        *to++ = '/';
        to = put_argument(to, b, n_b);
        size_t n = (size_t)(to - part);
        memcpy(at, part, n); /* "\frac" has five bytes, "(" ")" "/" "(" ")" too */
        memmove(at + n, end, strlen(end) + 1);
    }
}

/* Of a plain decimal number: leading zeros, a plus, zeros behind the point. */
static void trim_number(char *s)
{
    char *at = s + (*s == '-' || *s == '+'), *point = strchr(at, '.'),
         *end = at + strspn(at, "0123456789.");
    if (*end || end == at || (point && strchr(point + 1, '.')) || (point && end == at + 1))
        return;
    if (point) {
        while (end[-1] == '0')
            *--end = 0;
        if (end[-1] == '.')
            *--end = 0;
    }
    while (*at == '0' && digit(at[1]))
        cut_out(at, 1);
    if (*s == '+')
        cut_out(s, 1);
    if (*s == '-' && s[1 + strspn(s + 1, "0")] == 0)
        cut_out(s, 1);
}

void fr_answer_normalize(const char *answer, char *out)
{
    size_t n = strnlen(answer, FR_ANSWER_MAX - 1);
    memcpy(out, answer, n);
    out[n] = 0;
    replace_marks(out);
    unwrap_text(out);
    drop_thousands(out);
    drop_unit(out);
    replace(out, " ", "");
    replace(out, "\n", "");
    rewrite_fractions(out);
    char *equals = strchr(out, '='); /* "x = 5" */
    if (equals == out + 1 && letter(out[0]) && !strchr(equals + 1, '='))
        cut_out(out, 2);
    for (n = strlen(out); n > 0 && strchr(".,;:!", out[n - 1]);)
        out[--n] = 0;
    for (char *c = out; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    trim_number(out);
}

/* ---- comparing ---- */

/* A decimal number as p / q; 0 when it is none or too long for exact arithmetic. */
static int parse_decimal(const char **at, int64_t *p, int64_t *q)
{
    int digits = 0, point = 0;
    *p = 0;
    *q = 1;
    for (; digit(**at) || (**at == '.' && !point); (*at)++) {
        if (**at == '.') {
            point = 1;
            continue;
        }
        if (++digits > 15)
            return 0;
        *p = *p * 10 + (**at - '0');
        *q *= point ? 10 : 1;
    }
    return digits > 0;
}

/* A number or a fraction of two, as p / q with q > 0. */
static int parse_rational(const char *s, __int128 *p, __int128 *q)
{
    int64_t a = 0, b = 1, c = 1, d = 1;
    int negative = *s == '-';
    s += negative;
    int bracket = *s == '(';
    s += bracket;
    int inner = *s == '-';
    s += inner;
    if (!parse_decimal(&s, &a, &b) || (bracket && *s++ != ')'))
        return 0;
    if (*s == '/' && (s++, !parse_decimal(&s, &c, &d)))
        return 0;
    if (*s || c == 0)
        return 0;
    *p = (__int128)a * d * (negative != inner ? -1 : 1);
    *q = (__int128)b * c;
    return 1;
}

int fr_answer_equal(const char *a, const char *b)
{
    if (!*a || !*b)
        return 0;
    if (strlen(a) >= FR_ANSWER_MAX || strlen(b) >= FR_ANSWER_MAX)
        return strcmp(a, b) == 0;
    char x[FR_ANSWER_MAX], y[FR_ANSWER_MAX];
    fr_answer_normalize(a, x);
    fr_answer_normalize(b, y);
    if (*x && strcmp(x, y) == 0)
        return 1;
    __int128 p = 0, q = 1, r = 0, s = 1;
    if (!parse_rational(x, &p, &q) || !parse_rational(y, &r, &s))
        return 0;
    /* Both sides are below 10^15 * 10^15, so a product of two can pass 2^127: then they are not
     * called equal. */
    __int128 left = 0, right = 0;
    return !__builtin_mul_overflow(p, s, &left) && !__builtin_mul_overflow(r, q, &right) &&
           left == right;
}
