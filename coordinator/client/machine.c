/* machine.c: see machine.h. */
#include "machine.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The text after "KEY ...: " of the first line of the file that begins with the key. */
static int find_line(const char *path, const char *key, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");
    char line[256];
    int found = 0;
    if (!f)
        return 0;
    while (!found && fgets(line, sizeof line, f)) {
        char *colon = strncmp(line, key, strlen(key)) == 0 ? strchr(line, ':') : NULL;
        if (!colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, cap, "%s", colon);
        found = 1;
    }
    fclose(f);
    return found;
}

void fr_machine_read(fr_machine *out)
{
    cpu_set_t set;
    char text[64];
    double kb = 0;
    if (!find_line("/proc/cpuinfo", "model name", out->cpu, sizeof out->cpu))
        snprintf(out->cpu, sizeof out->cpu, "unknown");
    CPU_ZERO(&set);
    out->cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                            : (int)sysconf(_SC_NPROCESSORS_ONLN);
    out->memory_gb = 0;
    if (find_line("/proc/meminfo", "MemTotal", text, sizeof text) && sscanf(text, "%lf", &kb) == 1)
        out->memory_gb = kb * 1024 / 1e9;
}

static double status_mb(const char *key)
{
    char text[64];
    double kb = 0;
    if (!find_line("/proc/self/status", key, text, sizeof text) || sscanf(text, "%lf", &kb) != 1)
        return 0;
    return kb * 1024 / 1e6;
}

double fr_machine_rss_mb(void)
{
    return status_mb("VmRSS");
}

double fr_machine_rss_peak_mb(void)
{
    return status_mb("VmHWM");
}
