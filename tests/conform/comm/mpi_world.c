/* mpi_world.c: what only MPI has: one world of ranks that forms groups; and a build without it. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_share_text(void)
{
    fr_comm *c = NULL;
    OK(fr_comm_mpi_open(0, &c));
    char text[32] = "";
    OK(fr_comm_mpi_share_text(text, sizeof text));
    CHECK(text[0] == '\0', "nobody has a text, got \"%s\"", text);
    const int author = c->size - 1;
    if (c->rank == author)
        snprintf(text, sizeof text, "tcp://host:1234");
    OK(fr_comm_mpi_share_text(text, sizeof text));
    CHECK(strcmp(text, "tcp://host:1234") == 0, "got \"%s\"", text);
    /* Too long for one rank: that rank says so, the others get it. */
    const int small = c->size > 1 && c->rank == 0;
    if (c->rank != author)
        text[0] = '\0';
    CHECK(fr_comm_mpi_share_text(text, small ? 8 : sizeof text) == (small ? FR_ELIMIT : FR_OK),
          "size");
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
}

void check_groups(fr_comm *world)
{
    fr_comm *group = NULL;
    const int colour = world->rank == 0 ? 0 : 1;
    OK(fr_comm_mpi_open(colour, &group));
    CHECK(group->size == (colour == 0 ? 1 : world->size - 1), "size %d", group->size);
    CHECK(group->rank == (colour == 0 ? 0 : world->rank - 1), "rank %d", group->rank);
    check_here(group);
    check_sums(group);
    check_commands(group);
    group->ops->close(&group);
    CHECK(fr_comm_mpi_open(-1, &group) == FR_EINVAL && !group, "a negative colour");
    check_commands(world);
}

/* A build without MPI. Only mpirun's mark counts: srun may start groups of one rank each. */
void check_no_mpi(void)
{
    fr_comm *c = NULL;
    char text[8] = "";
    CHECK(fr_comm_mpi_open(0, &c) == FR_EUNSUPPORTED && !c, "no group");
    CHECK(fr_comm_mpi_share_text(text, sizeof text) == FR_EUNSUPPORTED, "no text");
    CHECK(strstr(fr_cause(), "built without MPI"), "it says why");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("PMI_RANK", "0", 1);
    CHECK(!fr_comm_mpi_launched(), "srun's process is a group");
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    CHECK(fr_comm_mpi_launched(), "mpirun's rank is none");
}
