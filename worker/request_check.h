/* request_check.h: what a Generate or Verify message says, and whether it can be done here.
 * Untrusted input: every number is checked before anything is made of it. */
#ifndef FR_REQUEST_CHECK_H
#define FR_REQUEST_CHECK_H

#include "requests.h"

uint64_t fr_request_id(const fr_msg *m);
const fr_msg_prefix *fr_request_prefix(const fr_msg *m);

/* FR_EINVAL names the field; FR_ELIMIT the need and what there is. */
fr_status fr_request_check(const fr_requests *t, const fr_msg *m);

#endif
