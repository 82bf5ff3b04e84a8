/* comm_nccl_late.c: what NCCL's functions are in a program that is not linked with it: each hands its arguments on to
 * the library's own once that is open. Their declarations are nccl.h's: a signature that differs does not compile. */
#include "comm_nccl_late.h"

#include <nccl.h>
#include <pthread.h>
#include <stdio.h>

#include "late.h"

/* X(type, name, parameters, arguments) */
#define FUNCTIONS(X)                                                                               \
    X(ncclResult_t, ncclGetUniqueId, (ncclUniqueId * id), (id))                                    \
    X(ncclResult_t, ncclCommInitRankConfig,                                                        \
      (ncclComm_t * comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config),              \
      (comm, size, id, rank, config))                                                              \
    X(ncclResult_t, ncclCommFinalize, (ncclComm_t comm), (comm))                                   \
    X(ncclResult_t, ncclCommDestroy, (ncclComm_t comm), (comm))                                    \
    X(ncclResult_t, ncclCommAbort, (ncclComm_t comm), (comm))                                      \
    X(ncclResult_t, ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t * error), (comm, error)) \
    X(ncclResult_t, ncclAllReduce,                                                                 \
      (const void *from, void *to, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, \
       cudaStream_t stream),                                                                       \
      (from, to, n, type, op, comm, stream))                                                       \
    X(ncclResult_t, ncclAllGather,                                                                 \
      (const void *from, void *to, size_t n, ncclDataType_t type, ncclComm_t comm,                 \
       cudaStream_t stream),                                                                       \
      (from, to, n, type, comm, stream))                                                           \
    X(ncclResult_t, ncclBroadcast,                                                                 \
      (const void *from, void *to, size_t n, ncclDataType_t type, int root, ncclComm_t comm,       \
       cudaStream_t stream),                                                                       \
      (from, to, n, type, root, comm, stream))                                                     \
    X(ncclResult_t, ncclSend,                                                                      \
      (const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,                 \
       cudaStream_t stream),                                                                       \
      (from, n, type, peer, comm, stream))                                                         \
    X(ncclResult_t, ncclRecv,                                                                      \
      (void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),   \
      (to, n, type, peer, comm, stream))                                                           \
    X(ncclResult_t, ncclGroupStart, (void), ())                                                    \
    X(ncclResult_t, ncclGroupEnd, (void), ())                                                      \
    X(const char *, ncclGetErrorString, (ncclResult_t result), (result))                           \
    X(const char *, ncclGetLastError, (ncclComm_t comm), (comm))

#define X(type, name, parameters, arguments) __typeof__(name) *name;
static struct {
    FUNCTIONS(X)
} nccl;
#undef X

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[256]; /* why it could not be opened; "" when it is open */

static void open_library(void)
{
#define X(type, name, parameters, arguments) {#name, &nccl.name},
    const fr_late_symbol symbols[] = {FUNCTIONS(X)};
#undef X
    if (fr_late_open("libnccl.so.2", symbols, sizeof symbols / sizeof *symbols) != FR_OK)
        snprintf(problem, sizeof problem, "NCCL: %s", fr_cause());
}

fr_status fr_nccl_open(void)
{
    pthread_once(&once, open_library);
    return problem[0] ? fr_fail(FR_EUNAVAILABLE, "%s", problem) : FR_OK;
}

/* Declared again, since nccl.h has those without parameters as C of old did. */
#define X(type, name, parameters, arguments)                                                       \
    type name parameters;                                                                          \
    type name parameters                                                                           \
    {                                                                                              \
        return nccl.name arguments;                                                                \
    }
FUNCTIONS(X)
#undef X
