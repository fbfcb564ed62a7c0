#!/usr/bin/env bash
# Part of the scenario `doctor`.
set -euo pipefail

# says WHAT COMMAND...: what the command prints holds that; its status is no matter here.
says() {
  local said
  said=$("${@:2}" 2>&1) || true
  case "$said" in
    *"$1"*) ;;
    *)
      printf '%s\n' "$said" "It was to say: $1" >&2
      return 1
      ;;
  esac
}

"$RACK_BIN/landfall" doctor --verbs "$RACK_ADDRESS" --pool "$RACK_DAX"
says rxe0 "$RACK_BIN/landfall" doctor --verbs "$RACK_ADDRESS" -o json
says "$RACK_ADDRESS" "$RACK_BIN/landfall" doctor -o json

# An address that no device has: the tool fails, and a broker does not start, for the same reason.
if "$RACK_BIN/landfall" doctor --verbs 10.99.0.1 >/dev/null; then
  echo "10.99.0.1 was found good" >&2
  exit 1
fi
"$RACK_BIN/landfall-control" --pool /dev/shm/pool --pool-bytes 67108864 --segment-bytes 2097152 \
  --sessions 16 --listen 127.0.0.1:0 >/tmp/control &
until grep -q ready /tmp/control; do sleep 0.1; done
reason="no RDMA device has the address 10.99.0.1"
says "$reason" "$RACK_BIN/landfall" doctor --verbs 10.99.0.1
says "$reason" "$RACK_BIN/landfall-broker" --pool /dev/shm/pool --number 0 --verbs 10.99.0.1:0
kill %1
