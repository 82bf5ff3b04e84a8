/* nccl_id.c: NCCL's id over MPI: ranks that are processes of their own, as a group's are, all begin with the id that
 * rank 0 made. Neither NCCL nor a GPU is here: a stand-in makes ids that differ from process to process, notes the one
 * that the communicator begins with, and then refuses, which all ranks have to hear of. Run by mpirun. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nccl.h>

#include "check_or_exit.h"
#include "comm_device.h"
#include "comm_nccl_late.h"
#include "stream_device.h"

static int n_made, n_begun;
static ncclUniqueId begun_with;

/* In place of the library's. */
fr_status fr_nccl_open(void)
{
    return FR_OK;
}

static ncclUniqueId id_of(int process)
{
    ncclUniqueId id;
    for (int i = 0; i < NCCL_UNIQUE_ID_BYTES; i++)
        id.internal[i] = (char)(process * 131 + i * (process % 251 + 1));
    return id;
}

ncclResult_t __wrap_ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t __wrap_ncclGetUniqueId(ncclUniqueId *id)
{
    n_made++;
    *id = id_of(getpid());
    return ncclSuccess;
}

ncclResult_t __wrap_ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t __wrap_ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    (void)size, (void)rank, (void)config;
    *comm = NULL;
    n_begun++;
    begun_with = id;
    return ncclInvalidUsage;
}

int main(void)
{
    fr_comm *host = NULL, *c = NULL;
    fr_device *dev = NULL;
    const fr_comm_device_options options = {.batch_invariant = true, .timeout_ms = 10000};
    CHECK(fr_comm_mpi_open(0, &host) == FR_OK && host->size > 1, "run me under mpirun");
    CHECK(stream_device_ops.open(&(fr_device_options){0}, &dev) == FR_OK, "no device");
    CHECK(fr_comm_nccl_open(host, &stream_device_ops, dev, &options, &c) == FR_EPEER, "NCCL did not refuse");
    CHECK(strstr(fr_cause(), "rank 0: NCCL: connecting the ranks: "), "another cause");
    CHECK(n_made == (host->rank == 0) && n_begun == 1, "rank %d: %d ids, begun %d times", host->rank, n_made, n_begun);

    int leader = getpid();
    CHECK(host->ops->broadcast(host, &leader, sizeof leader) == FR_OK, "the group does not go on");
    const ncclUniqueId want = id_of(leader);
    CHECK(memcmp(&begun_with, &want, sizeof want) == 0, "rank %d began with another id than rank 0's", host->rank);
    CHECK(c, "what was opened is to be closed here");
    c->ops->close(&c);
    stream_device_ops.close(&dev);
    host->ops->close(&host);
    return 0;
}
