#!/usr/bin/env bash
# usage: slurm_node.sh start|stop
# A Slurm cluster of this machine alone, to try `nibble run --backend slurm` on: Debian's
# slurm-wlm and munge, as root, with everything that they write below /tmp/nibble-slurm.
set -euo pipefail
home=/tmp/nibble-slurm

stop() {
  for daemon in slurmd slurmctld munged; do
    pid=$(cat "$home/$daemon.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || true
  done
}

write_config() {
  cat > "$home/slurm.conf" <<CONF
ClusterName=nibble
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmdSpoolDir=$home/spool
StateSaveLocation=$home/state
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.95) }' /proc/meminfo) State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  command -v slurmctld slurmd munged >/dev/null || { echo "slurm_node.sh: apt-get install slurm-wlm munge" >&2; exit 2; }
  stop
  rm -rf "$home"
  mkdir -p -m 755 "$home/spool" "$home/state"
  head -c 1024 /dev/urandom > "$home/munge.key"
  chmod 400 "$home/munge.key"
  munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" --log-file="$home/munged.log" \
    --seed-file="$home/munged.seed"
  write_config
  export SLURM_CONF=$home/slurm.conf
  slurmctld
  slurmd
  for _ in $(seq 30); do
    sinfo -h -o %t 2>/dev/null | grep -q idle && break
    sleep 1
  done
  sinfo
  echo "export SLURM_CONF=$home/slurm.conf"
}

case ${1:-} in
  start | stop) "$1" ;;
  *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;;
esac
