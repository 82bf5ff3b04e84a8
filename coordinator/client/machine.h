/* machine.h: the machine that numbers were measured on. */
#ifndef FR_MACHINE_H
#define FR_MACHINE_H

typedef struct fr_machine {
    char cpu[128];     /* the processor's name; "unknown" */
    int cores;         /* this process may run on */
    double memory_gb;
} fr_machine;

void fr_machine_read(fr_machine *out);
/* Resident memory of this process in MB: now, and the most there ever was. 0 when unknown. */
double fr_machine_rss_mb(void);
double fr_machine_rss_peak_mb(void);

#endif
