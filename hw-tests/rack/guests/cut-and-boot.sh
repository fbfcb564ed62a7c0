#!/usr/bin/env bash
# Part of the scenario `cut-and-boot`: a, and b both times.
set -euo pipefail
# shellcheck source=hw-tests/rack/guest/lib.sh
. hw-tests/rack/guest/lib.sh

case "$RACK_HOST" in
  a)
    wait_for b.written
    wait_for b.again
    wait_for_peer
    meet end
    ;;
  b)
    if [ ! -e "$RACK_SHARE/b.written" ]; then
      wait_for_peer
      hw-tests/rack/guest/dax.pl "$RACK_DAX" 0 put "before the cut"
      tell b.written
      wait_for nothing # its power is cut here
    fi
    found=$(hw-tests/rack/guest/dax.pl "$RACK_DAX" 0 get 14)
    echo "After the cut: $found"
    [ "$found" = "before the cut" ]
    tell b.again
    wait_for_peer
    meet end
    ;;
esac
