# shellcheck shell=bash disable=SC2154
# Host a, which has control and the broker that is published to, loses its power in mid-run and comes
# back: nothing that was acknowledged is lost, nothing is there twice, no order has changed.
set -euo pipefail

program=$(test_binary landfall-hw-tests two_hosts)
binaries
give "RACK_PROGRAM=$program"
boot a hw-tests/rack/guests/program.sh power_cut_a
boot b hw-tests/rack/guests/program.sh power_cut_b
wait_for cut-now
sleep 1
cut_power a
boot a hw-tests/rack/guests/program.sh power_cut_a
wait_both
