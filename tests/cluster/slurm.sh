# slurm.sh: a private Slurm (real daemons, loopback only, nothing under /etc), sourced by tests after lib.sh.

# Slurm 22.05 learnt the hard way: several slurmd under one host name need NodeHostname and ports of their own, and a TmpFS
# each (PMIx fails without); cred_expire shortens the wait before a requeued job starts again; Open MPI's shared memory
# does not survive "nodes" that share a machine, so messages go by tcp.
slurm_possible() {
    local program
    for program in slurmctld slurmd sbatch srun munged; do command -v $program >/dev/null || return 1; done
}
slurm_up() { # NODES CPUS
    local d=$T/slurm n=$1 cpus=$2 port i host
    host=$(hostname -s)
    port=$(free_port)
    mkdir -p "$d"/{spool,state,log,run,tmp}
    chmod 755 "$d" "$d"/*
    dd if=/dev/urandom of="$d/munge.key" bs=128 count=1 status=none
    chmod 400 "$d/munge.key"
    cat >"$d/slurm.conf" <<END
ClusterName=mini
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SrunPortRange=$((port + 100))-$((port + 199))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$d/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$d/state
SlurmdSpoolDir=$d/spool/%n
SlurmctldPidFile=$d/run/slurmctld.pid
SlurmdPidFile=$d/run/slurmd.%n.pid
SlurmctldLogFile=$d/log/slurmctld.log
SlurmdLogFile=$d/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
TmpFS=$d/tmp/%n
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=50000,bf_interval=1,requeue_setup_env_fail
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=300
JobRequeue=1
PropagateResourceLimits=NONE
END
    for ((i = 1; i <= n; i++)); do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1 + i)) CPUs=$cpus RealMemory=2000" \
            >>"$d/slurm.conf"
        mkdir -p "$d/spool/n$i" "$d/tmp/n$i"
    done
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 OverSubscribe=NO State=UP" >>"$d/slurm.conf"
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$d/cgroup.conf"
    export SLURM_CONF=$d/slurm.conf
    CLEANUPS+=(slurm_down)
    munged --key-file="$d/munge.key" --socket="$d/run/munge.sock" --pid-file="$d/run/munged.pid" \
        --log-file="$d/log/munged.log" --seed-file="$d/run/munge.seed" --num-threads=2 || fail "munged"
    slurmctld -c || fail "slurmctld"
    for ((i = 1; i <= n; i++)); do slurmd -N n$i || fail "slurmd"; done
    slurm_idle() { [ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" = "$n" ]; }
    wait_for 20 "$n idle Slurm nodes" slurm_idle
}
slurm_down() { # by the pids that the daemons wrote
    local file i pid
    scancel -u "$(id -un)" 2>/dev/null
    for ((i = 0; i < 60; i++)); do [ -n "$(squeue -h -t R,CG 2>/dev/null)" ] || break; sleep 0.1; done
    for file in "$T"/slurm/run/slurmd.*.pid "$T"/slurm/run/slurmctld.pid "$T"/slurm/run/munged.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file" 2>/dev/null)
        kill "$pid" 2>/dev/null
        for ((i = 0; i < 60; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    done
}
