/* comm_no_mpi.c: stands in for comm_mpi.c in a build without MPI: ranks meet over Forerun's own link, if at all. Those
 * that mpirun started learn that they cannot, rather than each being a group of its own; processes of srun may be just
 * that. */
#include "comm.h"

#include <stdlib.h>

#include "check.h"

static fr_status built_without(void)
{
    return fr_fail(FR_EUNSUPPORTED, "this program was built without MPI: mpirun cannot start its groups");
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
