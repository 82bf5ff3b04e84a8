/* store_sql.h: the store's tables and statements; for store.c only. A change of the tables is a new
 * VERSION. */
#ifndef FR_STORE_SQL_H
#define FR_STORE_SQL_H

#define APPLICATION_ID 0x46524e53 /* "FRNS" */
#define VERSION 3

/* clang-format off */
static const char schema[] =
    "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL,"
    " problem TEXT NOT NULL, system TEXT NOT NULL, policy TEXT NOT NULL, judge TEXT NOT NULL,"
    " threshold REAL, draft_tokens INTEGER NOT NULL, lookahead INTEGER NOT NULL,"
    " temperature REAL NOT NULL, top_p REAL NOT NULL, top_k INTEGER NOT NULL,"
    " seed INTEGER NOT NULL, sample INTEGER NOT NULL, max_tokens INTEGER NOT NULL,"
    " step_tokens INTEGER NOT NULL, delimiter TEXT NOT NULL, name TEXT NOT NULL,"
    " raw INTEGER NOT NULL, default_system INTEGER NOT NULL, default_suffix INTEGER NOT NULL,"
    " steps INTEGER NOT NULL, chain_tokens INTEGER NOT NULL,"
    " drafted INTEGER NOT NULL, accepted INTEGER NOT NULL, target_tokens INTEGER NOT NULL,"
    " passes INTEGER NOT NULL, seconds REAL NOT NULL, target_digest INTEGER NOT NULL,"
    " draft_digest INTEGER NOT NULL, target_model TEXT NOT NULL, draft_model TEXT NOT NULL,"
    " status INTEGER NOT NULL, cause TEXT NOT NULL, stop TEXT NOT NULL, answer TEXT NOT NULL,"
    " submitted_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,"
    " batch_dependent INTEGER NOT NULL, context INTEGER NOT NULL);"
    "CREATE INDEX jobs_state ON jobs (state);"
    "CREATE TABLE steps (job INTEGER NOT NULL, step INTEGER NOT NULL, ids BLOB NOT NULL,"
    " origin INTEGER NOT NULL, accepted INTEGER NOT NULL, score REAL, drafted INTEGER NOT NULL,"
    " kept INTEGER NOT NULL, seconds REAL NOT NULL, passes INTEGER NOT NULL, text BLOB NOT NULL,"
    " PRIMARY KEY (job, step)) WITHOUT ROWID;";

/* A store of version i becomes one of version i + 1. */
static const char *const upgrade_from[VERSION] = {
    [1] = "BEGIN; ALTER TABLE jobs ADD COLUMN batch_dependent INTEGER NOT NULL DEFAULT 0;"
          " PRAGMA user_version=2; COMMIT",
    [2] = "BEGIN; ALTER TABLE jobs ADD COLUMN default_system INTEGER NOT NULL DEFAULT 0;"
          " ALTER TABLE jobs ADD COLUMN default_suffix INTEGER NOT NULL DEFAULT 0;"
          " ALTER TABLE jobs ADD COLUMN context INTEGER NOT NULL DEFAULT 0;"
          " PRAGMA user_version=3; COMMIT",
};

#define JOB_COLUMNS                                                                                \
    "id, problem, system, policy, judge, threshold, draft_tokens, lookahead, temperature, top_p,"  \
    " top_k, seed, sample, max_tokens, step_tokens, delimiter, name, raw, default_system,"         \
    " default_suffix, state, steps, chain_tokens, drafted, accepted, target_tokens, passes,"       \
    " seconds, target_digest, draft_digest, target_model, draft_model, status, cause, stop,"       \
    " answer, submitted_ms, finished_ms, batch_dependent, context"
/* Column numbers of JOB_COLUMNS, and with 1 added its parameters: the spec, then what changes. */
enum { COL_PROBLEM = 1, COL_STATE = 20 };

enum { ADD_JOB, SET_JOB, ADD_STEP, TRIM_STEPS, ONE_JOB, ALL_JOBS, STATE_JOBS, OPEN_JOBS, STEPS,
       N_STATEMENTS };

static const char *const statement_text[N_STATEMENTS] = {
    [ADD_JOB] = "INSERT INTO jobs (" JOB_COLUMNS ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,"
                "?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,?31,?32,"
                "?33,?34,?35,?36,?37,?38,?39,?40)",
    [SET_JOB] = "UPDATE jobs SET state=?21, steps=?22, chain_tokens=?23, drafted=?24, accepted=?25,"
                " target_tokens=?26, passes=?27, seconds=?28, target_digest=?29, draft_digest=?30,"
                " target_model=?31, draft_model=?32, status=?33, cause=?34, stop=?35, answer=?36,"
                " submitted_ms=?37, finished_ms=?38, batch_dependent=?39, context=?40 WHERE id=?1",
    [ADD_STEP] = "INSERT INTO steps (job, step, ids, origin, accepted, score, drafted, kept,"
                 " seconds, passes, text) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
    [TRIM_STEPS] = "DELETE FROM steps WHERE job=?1 AND step>=?2",
    [ONE_JOB] = "SELECT " JOB_COLUMNS " FROM jobs WHERE id=?1",
    [ALL_JOBS] = "SELECT " JOB_COLUMNS " FROM jobs ORDER BY id DESC LIMIT ?1",
    [STATE_JOBS] = "SELECT " JOB_COLUMNS " FROM jobs WHERE state=?2 ORDER BY id DESC LIMIT ?1",
    [OPEN_JOBS] = "SELECT " JOB_COLUMNS
                  " FROM jobs WHERE state IN ('queued','running') ORDER BY id",
    [STEPS] = "SELECT step, ids, origin, accepted, score, drafted, kept, seconds, passes, text"
              " FROM steps WHERE job=?1 AND step>=?2 AND step<?3 ORDER BY step",
};
/* clang-format on */

#endif
