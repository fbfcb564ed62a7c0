# shellcheck shell=bash disable=SC2154
# One host has what a rack promises: soft-RoCE that reaches itself, and a CXL device as /dev/dax0.0.
set -euo pipefail

rack_one hw-tests/rack/guests/smoke.sh
# What the host wrote through its mapping is in the memory outside, at the same place.
[ "$(tail -c +$((4194304 + 100 + 1)) "$rack_cxl" | head -c 12)" = "from the dax" ]
