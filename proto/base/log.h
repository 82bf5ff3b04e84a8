/* log.h: one line a message on stderr: "forerun-worker rank 2: verify 3.1 ms". Thread-safe (one write a line). */
#ifndef FR_LOG_H
#define FR_LOG_H

typedef enum { FR_LOG_ERROR, FR_LOG_WARN, FR_LOG_INFO, FR_LOG_DEBUG } fr_log_level;

/* Begins a message, of any level, that tells why its program ends; an error tells that without it. Who started the
 * program takes no other message for the reason. */
#define FR_LOG_ENDS "ends: "

/* Sets the line prefix (copied, cut at 63 bytes) and the least important level written. Call once, before threads. */
void fr_log_open(const char *prefix, fr_log_level level);

void fr_log(fr_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
