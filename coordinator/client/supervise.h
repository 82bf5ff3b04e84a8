/* supervise.h: keeps the programs of a cluster running: what dies, or hangs, is started again, after a
 * pause that doubles with each early death. One thread; the caller calls fr_supervisor_tick() several
 * times a second. */
#ifndef FR_SUPERVISE_H
#define FR_SUPERVISE_H

#include "argv.h"
#include "process.h"

#define FR_BACKOFF_FIRST_MS 500
#define FR_BACKOFF_MAX_MS 30000
#define FR_BACKOFF_RESET_S 60.0 /* alive for so long: the next pause is the first one again */

/* The pause before the next start, after a program that waited last_ms before this start lived for
 * alive_s. */
int fr_backoff_ms(int last_ms, double alive_s);

typedef struct fr_member {
    fr_argv argv;
    fr_process process;
    char name[32], log_path[4096];
    int first; /* the coordinator: when it ends in order (code 0), the cluster was stopped */
    int backoff_ms;     /* of the last restart */
    double started_s, restart_at_s; /* restart_at_s 0: not due */
    long log_from;      /* where this run's part of the log begins */
    int served;         /* this run: its group was heard of */
    double silent_since_s; /* since when it is not; 0: it is, or nobody knows */
} fr_member;

typedef struct fr_supervisor {
    fr_member *members;
    int n_members;
    int settled;        /* the cluster was ready once: from then on nothing is given up */
} fr_supervisor;

/* Adds a program (argv moves in); it starts with fr_supervisor_start(). */
fr_status fr_supervisor_add(fr_supervisor *s, const char *name, const char *run_dir, fr_argv *argv);
fr_status fr_supervisor_start(fr_supervisor *s, int member);
/* Looks after all started members. FR_ECANCELLED when the coordinator ended in order. Until
 * `settled`, a member that ends with exit code 2 (bad input) is not started again: FR_EINVAL with
 * its own error line. */
fr_status fr_supervisor_tick(fr_supervisor *s);
/* What the coordinator knows of a member's group: whether it is alive, and how many seconds ago it was last heard of
 * (INFINITY: never). One that was heard of since its last start, and then is not alive for silent_ms by one note after
 * the other, is ended, so that it starts again: mpirun can outlive its ranks, and a rank can hang. May wait some
 * seconds for that end. */
fr_status fr_supervisor_note(fr_supervisor *s, const char *name, int alive, double heard_s, int silent_ms);
/* The coordinator does not answer: nothing is known of anyone. */
void fr_supervisor_note_nothing(fr_supervisor *s);
/* Ends all that runs: waits for those already ending, then insists. Frees. */
void fr_supervisor_stop(fr_supervisor *s, int grace_ms);

#endif
