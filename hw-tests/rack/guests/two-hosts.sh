#!/usr/bin/env bash
# Part of the scenario `two-hosts`: the same script on both.
set -euo pipefail
# shellcheck source=hw-tests/rack/guest/lib.sh
. hw-tests/rack/guest/lib.sh

wait_for_peer
# Each leaves a word in its own line of the device; each finds the other's.
case "$RACK_HOST" in a) mine=0 theirs=4096 ;; *) mine=4096 theirs=0 ;; esac
hw-tests/rack/guest/dax.pl "$RACK_DAX" "$mine" put "written by $RACK_ADDRESS"
meet written
found=$(hw-tests/rack/guest/dax.pl "$RACK_DAX" "$theirs" get 20)
echo "In the memory both share: $found"
[ "$found" = "written by $RACK_PEER" ]

read -r device gid < <(scripts/rxe gid "$RACK_ADDRESS")
if [ "$RACK_HOST" = a ]; then
  ib_write_bw -d "$device" -x "$gid" -s 16384 -n 20 &
  sleep 1
  meet served
  wait $!
else
  meet served
  ib_write_bw -d "$device" -x "$gid" -s 16384 -n 20 "$RACK_PEER" | grep -A 1 '#bytes'
fi
