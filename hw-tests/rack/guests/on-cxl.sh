#!/usr/bin/env bash
# As program.sh, with pools on this host's memory device.
set -euo pipefail

HW_POOL=$RACK_DAX exec hw-tests/rack/guests/program.sh "$@"
