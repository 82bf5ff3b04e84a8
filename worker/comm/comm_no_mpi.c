/* comm_no_mpi.c: takes comm_mpi.c's place in a build without MPI: groups have one rank, over comm_self. Ranks that
 * mpirun started learn that they cannot meet, rather than each being a group of its own; processes of srun may be just
 * that. */
#include "comm.h"

#include <stdlib.h>

#include "check.h"

static fr_status built_without(void)
{
    return fr_fail(FR_EUNSUPPORTED, "built without MPI (FORERUN_MPI): a group has one rank here");
}

fr_status fr_comm_mpi_open(int colour, fr_comm **out)
{
    (void)colour, (void)out;
    return built_without();
}

int fr_comm_mpi_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL;
}

fr_status fr_comm_mpi_share_text(char *text, size_t cap)
{
    (void)text, (void)cap;
    return built_without();
}
