# lib.sh: what the cluster tests share; sourced first. Each test runs in a scratch folder $T, under a time limit of its
# own (LIMIT seconds, set before sourcing), and ends everything it started, however it ends: programs are started in
# sessions of their own and stopped by them. Exit codes: 0 passed, 1 failed, 77 skipped.
# FORERUN_BIN names the folder of the programs under test.
set -u

if [ -z "${CLUSTER_GUARD:-}" ]; then
    CLUSTER_GUARD=1 exec timeout -k 30 "${LIMIT:-120}" bash "$0" "$@"
fi

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HERE=$ROOT/tests/cluster
BIN=${FORERUN_BIN:-$ROOT/build/release/bin}
TINY_TARGET=$ROOT/deploy/models/tiny/tiny-target.gguf
TINY_DRAFT=$ROOT/deploy/models/tiny/tiny-draft.gguf
SLOW=${FORERUN_TEST_SLOW:-1} # sanitizer builds wait longer
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
MPIRUN=(mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1)

T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
chmod 755 "$T"
declare -A SESSION=()
# Whatever descends from this test carries the mark in its environment: leftovers can be found.
export FORERUN_TEST_MARK=$$.$RANDOM
CLEANUPS=()

say() { echo "# $*"; }
skip() { echo "skipped: $*"; exit 77; }
fail() {
    echo "FAILED: $*" >&2
    local log
    for log in "$T"/*.log; do
        [ -s "$log" ] && { echo "--- $log" >&2; tail -n 15 "$log" >&2; }
    done
    exit 1
}

for program in forerun forerun-coordinator forerun-worker; do
    [ -x "$BIN/$program" ] || fail "$BIN/$program is missing"
done

# --- processes

start() { # NAME COMMAND...: in the background, output to $T/NAME.log
    local name=$1
    shift
    setsid "$@" >>"$T/$name.log" 2>&1 </dev/null &
    SESSION[$name]=$!
}
pid_of() { echo "${SESSION[$1]}"; }
members() { ps -o pid= --sid "$1" 2>/dev/null | tr -d ' '; } # pids of a session
alive() { kill -0 "${SESSION[$1]}" 2>/dev/null; }
# The processes of a session or any process below them (mpirun's ranks may lead sessions of their own).
family() { # PID
    local child
    echo "$1"
    for child in $(ps -o pid= --ppid "$1" 2>/dev/null); do family "$child"; done
}
kill_now() { # NAME: no process of it gets a chance to clean up
    # shellcheck disable=SC2046
    kill -9 $(family "${SESSION[$1]}") 2>/dev/null
    wait "${SESSION[$1]}" 2>/dev/null
    unset "SESSION[$1]"
}
stop() { # NAME: asks, then insists
    local pid=${SESSION[$1]} i
    kill -TERM "$pid" 2>/dev/null
    for ((i = 0; i < 100 * SLOW; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    # shellcheck disable=SC2046
    kill -9 $(members "$pid") 2>/dev/null
    wait "$pid" 2>/dev/null
    unset "SESSION[$1]"
}
leftovers() { # pids of this test's processes other than the script itself and its helpers
    local environ pid
    for environ in /proc/[0-9]*/environ; do
        pid=${environ#/proc/}
        pid=${pid%/environ}
        [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] || continue
        grep -qsz "^FORERUN_TEST_MARK=$FORERUN_TEST_MARK$" "$environ" || continue
        grep -qs '^forerun\|^mpirun\|^orted\|^conform' "/proc/$pid/comm" && echo "$pid"
    done
}
cleanup() {
    local rc=$? name command
    trap - EXIT
    for name in "${!SESSION[@]}"; do kill -TERM "${SESSION[$name]}" 2>/dev/null; done
    for ((i = 0; i < 30 && ${#SESSION[@]}; i++)); do
        for name in "${!SESSION[@]}"; do alive "$name" || unset "SESSION[$name]"; done
        sleep 0.1
    done
    for name in "${!SESSION[@]}"; do
        # shellcheck disable=SC2046
        kill -9 $(family "${SESSION[$name]}") 2>/dev/null
    done
    for command in "${CLEANUPS[@]}"; do $command; done
    # shellcheck disable=SC2046
    kill -9 $(leftovers) 2>/dev/null
    if [ $rc = 1 ] && [ -n "${FORERUN_TEST_KEEP:-}" ]; then say "kept $T"; else rm -rf "$T"; fi
    exit $rc
}
trap cleanup EXIT
trap 'echo "FAILED: time limit of ${LIMIT:-120} s" >&2; exit 1' TERM INT

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local end=$((SECONDS + $1 * SLOW)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "waited in vain for $what"
        sleep 0.05
    done
}
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000)) # below the ephemeral ones
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
    done
}

# --- Forerun

json() { # KEY (JSON objects, one a line, on stdin): that field of the last one on one line, "" when absent
    python3 -c '
import json, sys
line = [l for l in sys.stdin if l.lstrip().startswith("{")][-1]
value = json.loads(line)
for key in sys.argv[1].split("."):
    value = value.get(key, "") if isinstance(value, dict) else ""
print(value.replace("\n", "|") if isinstance(value, str) else json.dumps(value))' "$1"
}
question() { sed -n "$1p" "$ROOT/deploy/models/tiny/dev.jsonl" | json question; } # LINE
right_answer() { sed -n "$1p" "$ROOT/deploy/models/tiny/dev.jsonl" | json answer; } # LINE; the model may miss it

start_coordinator() { # NAME ENDPOINT ARGS...; EP is then its real endpoint
    local name=$1 bind=$2
    shift 2
    rm -f "$T/$name.ready"
    start "$name" "$BIN/forerun-coordinator" --bind "$bind" --ready-file "$T/$name.ready" "$@"
    wait_for 20 "coordinator" ready_or_dead "$name"
    alive "$name" || fail "coordinator ended at start"
    EP=$(head -n 1 "$T/$name.ready")
}
ready_or_dead() { [ -s "$T/$1.ready" ] || ! alive "$1"; }
start_target() { # NAME RANKS: a target group on $EP
    start "$1" "${MPIRUN[@]}" -np "$2" "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --role target \
        --name "$1" --threads 1
}
n_serving() { # ROLE: groups of that role that are alive
    "$BIN/forerun" status --connect "$EP" --json 2>/dev/null | python3 -c '
import json, sys
status = json.loads([l for l in sys.stdin if l.startswith("{")][-1])
print(sum(1 for g in status["groups"] if g["alive"] and g["role"] == sys.argv[1]))' "$1"
}
serves() { [ "$(n_serving "$1")" -ge "${2:-1}" ]; } # ROLE [COUNT]
solve() { # ARGS...: the "done" object of a job on $EP
    "$BIN/forerun" solve --connect "$EP" --json "$@" 2>"$T/solve.err" | grep '"event": *"done"' |
        tail -n 1
}
