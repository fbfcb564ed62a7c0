#!/usr/bin/env bash
# Part of the scenario `smoke`.
set -euo pipefail
# shellcheck source=hw-tests/rack/guest/lib.sh
. hw-tests/rack/guest/lib.sh

rdma link show | grep 'link rxe0/1 state ACTIVE physical_state LINK_UP netdev landfall0'
ibv_devinfo -d rxe0 -v | grep -E 'state:|active_mtu|GID\['
[ "$(ulimit -l)" = unlimited ]

size=$(cat /sys/bus/dax/devices/dax0.0/size)
echo "$RACK_DAX: $size bytes"
[ -c "$RACK_DAX" ]
[ "$size" -eq $((RACK_CXL_MIB << 20)) ]
hw-tests/rack/guest/dax.pl "$RACK_DAX" $((4194304 + 100)) put "from the dax"
[ "$(hw-tests/rack/guest/dax.pl "$RACK_DAX" $((4194304 + 100)) get 12)" = "from the dax" ]

# The GID where it was found, never a fixed index.
read -r device gid < <(scripts/rxe gid "$RACK_ADDRESS")
echo "$RACK_ADDRESS: $device, GID index $gid"
ib_write_bw -d "$device" -x "$gid" -s 65536 -n 50 >"/tmp/server" &
server=$!
sleep 1
ib_write_bw -d "$device" -x "$gid" -s 65536 -n 50 "$RACK_ADDRESS" | grep -A 1 '#bytes'
wait "$server"
