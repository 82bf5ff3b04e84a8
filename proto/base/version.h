/* version.h: what every program says to --version, and a coordinator to its clients. */
#ifndef FR_VERSION_H
#define FR_VERSION_H

#define FR_VERSION "forerun 0.1.0"

#endif
