# hosts.sh: several "machines" on this one, sourced by tests (after lib.sh). Each is a set of namespaces (network, host
# name, IPC, mounts, processes, its own /dev/shm), joined by a bridge in a namespace of its own; the root network is not
# touched. h0 is the head: it has a network and a host name of its own, but this machine's processes and files.
# Needs root. Addresses: h0 10.77.0.100, hI 10.77.0.I.

HOSTS=$T/hosts
hosts_possible() { unshare --net --uts --ipc --mount --pid --fork --mount-proc true 2>/dev/null && command -v ip >/dev/null; }

hold='while :; do sleep 1000 & wait $!; done' # a process 1 that reaps
hold_namespace() { # NAME UNSHARE-FLAGS... -- COMMAND-BEFORE
    local name=$1 flags=()
    shift
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    setsid unshare "${flags[@]}" bash -c "${2:-:}; touch $HOSTS/$name.ready; $hold" \
        </dev/null >"$HOSTS/$name.log" 2>&1 &
    echo $! >"$HOSTS/$name.outer"
    disown # its end is no news
}
on_host() { # HOST COMMAND...
    local name=$1 pid
    shift
    pid=$(cat "$HOSTS/$name.pid") || return
    case "$name" in
    switch) nsenter -t "$pid" -n "$@" ;;
    h0) nsenter -t "$pid" -n -u "$@" ;;
    *) nsenter -t "$pid" -n -u -i -m -p "$@" ;;
    esac
}
hosts_up() { # N
    local n=$1 i pid address
    mkdir -p "$HOSTS"
    CLEANUPS+=(hosts_down)
    hold_namespace switch --net --
    hold_namespace h0 --net --uts -- "hostname h0; ip link set lo up"
    for ((i = 1; i <= n; i++)); do
        hold_namespace h$i --net --uts --ipc --mount --pid --fork --mount-proc --propagation private -- \
            "hostname h$i; mount -t tmpfs -o size=512m tmpfs /dev/shm; ip link set lo up"
    done
    { echo "127.0.0.1 localhost"; echo "10.77.0.100 h0"; for ((i = 1; i <= n; i++)); do echo "10.77.0.$i h$i"; done; } \
        >"$HOSTS/table"
    for name in switch h0 $(seq -f h%g "$n"); do
        wait_for 10 "$name" test -e "$HOSTS/$name.ready"
        pid=$(cat "$HOSTS/$name.outer")
        case "$name" in switch | h0) ;; *) pid=$(ps -o pid= --ppid "$pid" | tr -d ' ') ;; esac
        echo "$pid" >"$HOSTS/$name.pid"
    done
    on_host switch ip link add bridge type bridge && on_host switch ip link set bridge up
    for ((i = 0; i <= n; i++)); do
        address=10.77.0.$i
        [ $i != 0 ] || address=10.77.0.100
        on_host switch ip link add port$i type veth peer name eth0 netns "$(cat "$HOSTS/h$i.pid")"
        on_host switch ip link set port$i master bridge up
        nsenter -t "$(cat "$HOSTS/h$i.pid")" -n ip addr add $address/24 dev eth0
        nsenter -t "$(cat "$HOSTS/h$i.pid")" -n ip link set eth0 up
        [ $i = 0 ] || nsenter -t "$(cat "$HOSTS/h$i.pid")" -m mount --bind "$HOSTS/table" /etc/hosts
    done
}
hosts_down() { # the end of a process namespace's first process ends everything in it
    local file
    for file in "$HOSTS"/h[1-9]*.pid; do [ -s "$file" ] && kill -9 "$(cat "$file")" 2>/dev/null; done
    for file in "$HOSTS"/*.outer; do [ -s "$file" ] && kill -9 -- "-$(cat "$file")" 2>/dev/null; done
    true
}
# mpirun on the head over the hosts; Open MPI's remote shell is a script that enters the host's namespaces.
mpirun_hosts() { # HOST:SLOTS,... MPIRUN-ARGS...
    local list=$1
    shift
    cat >"$HOSTS/rsh" <<END
#!/bin/bash
while [[ \$1 == -* ]]; do shift; done
pid=\$(cat "$HOSTS/\$1.pid") || exit 255
shift
exec nsenter -t \$pid -n -u -i -m -p /bin/sh -c "\$*"
END
    chmod +x "$HOSTS/rsh"
    HOSTS_MPIRUN=(nsenter -t "$(cat "$HOSTS/h0.pid")" -n -u mpirun --mca plm rsh --mca plm_rsh_agent "$HOSTS/rsh"
        --mca routed direct --bind-to none --oversubscribe --mca mpi_yield_when_idle 1 --mca btl vader,tcp,self
        --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --host "$list" "$@")
}
