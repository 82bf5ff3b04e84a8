/* comm_mpi_start.c: how MPI starts in this process, and what the ranks of one mpirun do before they form groups. */
#include "comm_mpi_impl.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

fr_status fr_mpi_check(int rc, const char *what)
{
    if (rc == MPI_SUCCESS)
        return FR_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(rc, text, &length);
    return fr_fail(FR_EPEER, "%s: %s", what, text);
}

int fr_mpi_usable_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (!getenv("OMPI_MCA_orte_bound_at_launch") && sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Settings that Open MPI reads when it starts, for ranks whose launcher did not decide. Without yielding, ranks beyond
 * the cores spin against each other: an all-reduce takes 30 ms instead of 20 us. The eager limit speeds messages of
 * 16-64 KB within a host threefold. Ranks that are all on one host meet in its memory: looking for network fabrics
 * first, as Open MPI does unless it is told ob1, takes 0.2 s. */
static void set_mpi_defaults(void)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_LOCAL_SIZE"), *all = getenv("OMPI_COMM_WORLD_SIZE");
    if (ranks && strtol(ranks, NULL, 10) >= fr_mpi_usable_cores())
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if (ranks && all && strcmp(ranks, all) == 0)
        setenv("OMPI_MCA_pml", "ob1", 0);
    setenv("OMPI_MCA_btl_vader_eager_limit", "65536", 0);
}

fr_status fr_mpi_start(void)
{
    int done = 0, over = 0, provided = 0;
    FR_TRY(fr_mpi_check(MPI_Initialized(&done), "MPI_Initialized"));
    FR_TRY(fr_mpi_check(MPI_Finalized(&over), "MPI_Finalized"));
    if (over)
        return fr_fail(FR_EINVAL, "MPI was closed and cannot start again in this process");
    if (done)
        return FR_OK;
    set_mpi_defaults();
    FR_TRY(fr_mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED)
        return fr_fail(FR_EUNSUPPORTED, "this MPI library cannot be used in a program with threads");
    return fr_mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

int fr_comm_mpi_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

/* The first rank of the world with a text, and the text's length; lengths [n_ranks]. */
static int find_author(const int *lengths, int n_ranks)
{
    for (int r = 0; r < n_ranks; r++) {
        if (lengths[r] > 0)
            return r;
    }
    return -1;
}

fr_status fr_comm_mpi_share_text(char *text, size_t cap)
{
    FR_TRY(fr_mpi_start());
    int rank = 0, size = 0;
    FR_TRY(fr_mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank"));
    FR_TRY(fr_mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size"));
    const int mine = (int)strnlen(text, cap);
    fr_status st = FR_OK;
    char *shared = NULL;
    int *lengths = calloc((size_t)size, sizeof *lengths);
    if (!lengths)
        return fr_no_memory();
    FR_TRY_GOTO(st, fr_mpi_check(MPI_Allgather(&mine, 1, MPI_INT, lengths, 1, MPI_INT, MPI_COMM_WORLD), "share_text"),
                done);
    const int author = find_author(lengths, size);
    if (author < 0) /* nobody has one */
        goto done;
    const int length = lengths[author];
    shared = calloc((size_t)length + 1, 1);
    if (!shared) {
        st = fr_no_memory();
        goto done;
    }
    if (rank == author)
        memcpy(shared, text, (size_t)length);
    FR_TRY_GOTO(st, fr_mpi_check(MPI_Bcast(shared, length, MPI_BYTE, author, MPI_COMM_WORLD), "share_text"), done);
    if ((size_t)length >= cap)
        st = fr_fail(FR_ELIMIT, "share_text: a text of %d bytes is too long here", length);
    else
        memcpy(text, shared, (size_t)length + 1);
done:
    free(shared);
    free(lengths);
    return st;
}
