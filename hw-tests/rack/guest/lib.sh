# shellcheck shell=bash
# For the scripts that run on a rack's host. They have in their environment: RACK_HOST (one, a, b),
# RACK_ADDRESS and RACK_PEER (the other host; alone, itself), RACK_DAX (the memory device),
# RACK_CXL_MIB, RACK_SHARE (a folder that all hosts and the outside write), RACK_ROOT (this
# repository), HW_RDMA=device, and what the scenario gave.
set -euo pipefail

# tell NAME [TEXT]: puts a file in the share, whole or not at all.
tell() {
  printf '%s\n' "${2:-}" >"$RACK_SHARE/$1.part-$RACK_HOST"
  mv "$RACK_SHARE/$1.part-$RACK_HOST" "$RACK_SHARE/$1"
}

# wait_for NAME: until it is in the share. A scenario has a bound, so this needs none.
wait_for() {
  local host
  while [ ! -e "$RACK_SHARE/$1" ]; do
    for host in a b; do
      if [ "$host" != "$RACK_HOST" ] && [ "$(cat "$RACK_SHARE/$host.status" 2>/dev/null)" ] &&
        [ ! -e "$RACK_SHARE/$1" ]; then
        echo "Waiting for $1, but host $host is off" >&2
        return 1
      fi
    done
    sleep 0.1
  done
}

# meet NAME: until the other host is there too. A name is good for one meeting.
meet() {
  tell "$1.$RACK_HOST"
  case "$RACK_HOST" in
    a) wait_for "$1.b" ;;
    b) wait_for "$1.a" ;;
  esac
}

# Until the other host answers, up to a minute.
wait_for_peer() {
  local tries
  for ((tries = 0; tries < 60; tries++)); do
    ! ping -q -c 1 -W 1 "$RACK_PEER" >/dev/null || return 0
  done
  echo "No answer from $RACK_PEER" >&2
  return 1
}
