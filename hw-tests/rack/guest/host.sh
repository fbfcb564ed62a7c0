#!/usr/bin/env bash
# The second stage of a rack's host, run by init inside the machine's own file system: makes the CXL
# memory a device, puts soft-RoCE on a network, runs the script of this host, reports, goes off.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8 TERM=dumb
set -a
# shellcheck source=/dev/null
. "$RACK_SHARE/environment"
set +a
cd "$RACK_ROOT"

export HW_RDMA=device RACK_DAX=/dev/dax0.0 RUST_BACKTRACE=1

uptime_s() {
  cut -d ' ' -f 1 /proc/uptime
}

# The verdict, whatever happens: without one, whoever waits outside takes this host for dead.
finish() {
  local status=$?
  printf 'rack: %s: exit status %d, %s s after boot\n' "$RACK_HOST" "$status" "$(uptime_s)"
  echo "$status" >"$RACK_SHARE/$RACK_HOST.status.part"
  mv "$RACK_SHARE/$RACK_HOST.status.part" "$RACK_SHARE/$RACK_HOST.status"
  busybox poweroff -f
}
trap finish EXIT

# A region over the whole CXL device, and /dev/dax0.0 over the region. By hand: tools of this age
# cannot create a region of volatile memory.
make_region() {
  local devices=/sys/bus/cxl/devices region bytes tries
  # The device's own decoder comes last, when the drivers have found their way to it.
  for ((tries = 0; tries < 100; tries++)); do
    [ ! -e $devices/decoder2.0 ] || break
    sleep 0.2
  done
  bytes=$((RACK_CXL_MIB << 20))
  region=$(cat $devices/decoder0.0/create_ram_region)
  echo "$region" >$devices/decoder0.0/create_ram_region
  echo 256 >"$devices/$region/interleave_granularity"
  echo 1 >"$devices/$region/interleave_ways"
  echo "$bytes" >"$devices/$region/size"
  echo ram >$devices/decoder2.0/mode
  echo "$bytes" >$devices/decoder2.0/dpa_size
  echo decoder2.0 >"$devices/$region/target0"
  echo 1 >"$devices/$region/commit"
  echo "$region" >/sys/bus/cxl/drivers/cxl_region/bind
  # It would be memory of the system otherwise.
  daxctl reconfigure-device -f -m devdax dax0.0 >/dev/null
}

# What the kernel leaves to a device manager.
mkdir -p /dev/shm /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
hostname "$RACK_HOST"
ip link set lo up
ulimit -Hn 1048576
ulimit -l unlimited
make_region
if [ "$RACK_ADDRESS" = "$RACK_PEER" ]; then
  scripts/rxe up >/dev/null
else
  ip address add "$RACK_ADDRESS/24" dev eth0
  ip link set eth0 mtu 4500 up
  scripts/rxe up eth0 >/dev/null
fi
: >"$RACK_SHARE/$RACK_HOST.up"
printf 'rack: %s: ready, %s s after boot\n' "$RACK_HOST" "$(uptime_s)"
# shellcheck source=/dev/null
bash "$RACK_SHARE/$RACK_HOST.command"
