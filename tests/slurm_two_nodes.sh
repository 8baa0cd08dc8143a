#!/bin/sh
# A Slurm cluster of two nodes on one machine, for the time of one command:
#
#     slurm_two_nodes.sh FOLDER COMMAND...     runs `srun -N2 COMMAND...`
#
# Each node has a network namespace of its own, with one cable between them, so that both can listen
# at the same port. Needs root, Debian's slurm-wlm, and iproute2. The namespaces, and with them all
# daemons, end with this script; nothing outside FOLDER changes. The cluster trusts everybody
# (auth/none): it can only be reached from its own namespaces.
set -eu
if [ "${1:-}" != --inside ]; then
    exec unshare --net --uts --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift
folder=$(realpath "$1")
shift
export SLURM_CONF="$folder/slurm.conf"
mkdir -p "$folder/state" "$folder/node1" "$folder/node2"
{ echo "127.0.0.1 localhost"; echo "10.0.0.1 node1"; echo "10.0.0.2 node2"; } > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
hostname node1
cat > "$SLURM_CONF" <<EOF
ClusterName=two
SlurmctldHost=node1
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/linear
SlurmdParameters=config_overrides
NodeName=node[1-2] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP
EOF

unshare --net --uts sleep infinity &
other=$!
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link set lo up
ip link add cable1 type veth peer name cable2 netns $other
ip address add 10.0.0.1/24 dev cable1
ip link set cable1 up
nsenter -t $other -n -u sh -c \
    "hostname node2; ip link set lo up; ip address add 10.0.0.2/24 dev cable2; ip link set cable2 up"

slurmctld -D > "$folder/slurmctld.log" 2>&1 &
controller=$!
slurmd -D -N node1 > "$folder/node1.log" 2>&1 &
nsenter -t $other -n -u slurmd -D -N node2 > "$folder/node2.log" 2>&1 &
tries=0
until sinfo --noheader --nodes node1,node2 --format %T 2> "$folder/sinfo.log" | grep -qx idle &&
    [ "$(sinfo --noheader --Node --format %T | grep -cx idle)" = 2 ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] && kill -0 $controller || { cat "$folder"/*.log >&2; exit 70; }
    sleep 1
done
srun --nodes 2 --ntasks 2 --label "$@"
