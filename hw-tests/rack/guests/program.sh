#!/usr/bin/env bash
# Runs tests of a program on this host: program.sh NAMES, a program's tests by their names. The
# scenario gives RACK_PROGRAM. Things take longer in an emulator, and there are fewer of them.
set -euo pipefail
# shellcheck source=hw-tests/rack/guest/lib.sh
. hw-tests/rack/guest/lib.sh

export LANDFALL_BIN_DIR=$RACK_BIN HW_SLOW=${HW_SLOW:-6} HW_TRIM=${HW_TRIM:-20}
"$RACK_PROGRAM" --ignored --test-threads=1 "$@"
