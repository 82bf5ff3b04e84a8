/* test_log_limit.c: the log under a peer that sends nothing but nonsense: the limit by itself, and a
 * whole coordinator (live_coordinator.h) whose log is read. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "clock.h"
#include "live_coordinator.h"
#include "log.h"
#include "log_limit.h"

static void lets_a_few_pass_and_counts_the_rest(void **state)
{
    fr_log_limit l = {0};
    (void)state;
    for (int i = 0; i < FR_LOG_LIMIT_LINES; i++)
        assert_true(fr_log_limit_pass(&l, 100));
    assert_true(isinf(fr_log_limit_deadline(&l)));
    assert_int_equal(fr_log_limit_count(&l, 200), 0);
    for (int i = 0; i < 7; i++)
        assert_false(fr_log_limit_pass(&l, 100.5));
    assert_true(fr_log_limit_deadline(&l) == 101);
    assert_int_equal(fr_log_limit_count(&l, 100.9), 0);
    assert_false(fr_log_limit_pass(&l, 101.5)); /* the count comes first */
    assert_int_equal(fr_log_limit_count(&l, 101.5), 8);
    assert_int_equal(fr_log_limit_count(&l, 101.5), 0);
    assert_true(isinf(fr_log_limit_deadline(&l)));
    assert_true(fr_log_limit_pass(&l, 101.5));
}

/* Sends frames that are no message; each is answered. */
static void send_nonsense(const char *endpoint, int n)
{
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    char reply[512];
    int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, endpoint), 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(zmq_send(raw, "nonsense", 8, 0), 8);
        assert_true(zmq_recv(raw, reply, sizeof reply, 0) > 8);
    }
    zmq_close(raw);
    zmq_ctx_term(context);
}

/* The warnings in the log: lines of their own, and those that a line counts. */
static void read_log(FILE *log, int *listed_out, int *counted_out)
{
    char line[1024];
    *listed_out = *counted_out = 0;
    rewind(log);
    while (fgets(line, sizeof line, log)) {
        const char *text = strstr(line, "warning: ");
        int n = 0;
        if (text && strstr(text, "left out") && sscanf(text, "warning: %d more", &n) == 1)
            *counted_out += n;
        else
            *listed_out += text != NULL;
    }
}

static void nonsense_does_not_fill_the_log(void **state)
{
    enum { FRAMES = 500 };
    fixture *f = *state;
    FILE *log = tmpfile();
    assert_non_null(log);
    /* Reading moves the one offset that both have. */
    assert_int_equal(fcntl(fileno(log), F_SETFL, O_APPEND), 0);
    int out = dup(STDERR_FILENO), listed = 0, counted = 0;
    assert_true(out >= 0 && dup2(fileno(log), STDERR_FILENO) >= 0);
    send_nonsense(f->server.endpoint, FRAMES);
    for (int i = 0; i < 400 && listed + counted < FRAMES; i++) {
        fr_sleep_ms(20);
        read_log(log, &listed, &counted);
    }
    dup2(out, STDERR_FILENO);
    close(out);
    fclose(log);
    assert_int_equal(listed + counted, FRAMES);
    assert_true(listed > 0 && counted > 0);
}

int main(void)
{
    fr_log_open("test_log_limit", FR_LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lets_a_few_pass_and_counts_the_rest),
        cmocka_unit_test_setup_teardown(nonsense_does_not_fill_the_log, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
