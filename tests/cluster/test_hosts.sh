#!/usr/bin/env bash
# A target group across two hosts: the communicators' suite, then a job whose text is that of a group on one host.
LIMIT=180
. "$(dirname "$0")/lib.sh"
. "$HERE/hosts.sh"
hosts_possible || skip "namespaces are not permitted here"

hosts_up 2
say "the communicators' suite over two hosts"
mpirun_hosts h1:1,h2:1 -np 2 "$BIN/conform_comm" mpi 2
timeout 60 "${HOSTS_MPIRUN[@]}" >"$T/conform.log" 2>&1 || fail "the suite over two hosts"
mpirun_hosts h1:2,h2:2 -np 4 "$BIN/conform_comm" mpi 4
timeout 90 "${HOSTS_MPIRUN[@]}" >"$T/conform.log" 2>&1 || fail "the suite over two hosts, two ranks each"

say "a group over two hosts"
on_head=(nsenter -t "$(cat "$HOSTS/h0.pid")" -n -u)
start coordinator "${on_head[@]}" "$BIN/forerun-coordinator" --bind tcp://10.77.0.100:0 --draft "$TINY_DRAFT" \
    --ready-file "$T/ready"
wait_for 20 "the coordinator" test -s "$T/ready"
EP=$(head -n 1 "$T/ready")
mpirun_hosts h1:1,h2:1 -np 2 "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --role target --name target \
    --threads 1
start target "${HOSTS_MPIRUN[@]}"
client() { "${on_head[@]}" "$BIN/forerun" "$@"; }
target_is_there() { client status --connect "$EP" --json | grep -q '"role": *"target"'; }
wait_for 40 "the target" target_is_there
text=$(client solve --connect "$EP" --json --policy token "$(question 1)" 2>"$T/solve.err" |
    grep '"event": *"done"' | json text)
want=$("$BIN/forerun" solve --ranks 2 --json --policy token "$(question 1)" 2>>"$T/solve.err" |
    grep '"event": *"done"' | json text)
[ -n "$text" ] && [ "$text" = "$want" ] || fail "over two hosts: '$text', on one: '$want'; $(cat "$T/solve.err")"
say "same text over two hosts and on one"
