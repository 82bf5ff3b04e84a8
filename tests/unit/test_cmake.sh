#!/usr/bin/env bash
# What CMake says of what it does not find: AUTO goes on without tests where cmocka is missing and without the GPU backend
# where nvcc does not work, and tells both; ON insists. Usage: test_cmake.sh SOURCES
set -euo pipefail
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*: $(tail -n 20 "$T/log")" >&2; exit 1; }
told() { tr -s ' \n' ' ' <"$T/log" | grep -qF -- "$1" || fail "\"$1\" is not told"; } # CMake breaks lines
configure() { cmake -S "$1" -B "$T/build" -DPKG_CONFIG_EXECUTABLE="$T/pkg-config" -DFORERUN_MPI=OFF "${@:2}" >"$T/log" 2>&1; }

cat >"$T/pkg-config" <<END_OF_SCRIPT
#!/bin/sh
case "\$*" in *cmocka*) exit 1 ;; esac
exec $(command -v pkg-config) "\$@"
END_OF_SCRIPT
printf '#!/bin/sh\necho "cannot execute cc1plus" >&2\nexit 1\n' >"$T/nvcc"
chmod +x "$T/pkg-config" "$T/nvcc"

configure "$1" -DFORERUN_NVCC="$T/nvcc" || fail "AUTO does not go on"
told "Built without tests: cmocka was not found (deploy/deps --tests installs it)"
told "Built without the GPU backend: $T/nvcc does not compile a kernel for sm_90 with cublasLt.h: cannot execute cc1plus"
! configure "$1" -DFORERUN_CUDA=OFF -DFORERUN_TESTS=ON || fail "ON goes on"
told "FORERUN_TESTS is ON, but cmocka was not found"
