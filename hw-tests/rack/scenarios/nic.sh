# shellcheck shell=bash disable=SC2154
# What sys/nic promises of queue pairs, windows and connections, on a real driver.
set -euo pipefail

program=$(test_binary landfall-nic rxe)
give "RACK_PROGRAM=$program"
rack_one hw-tests/rack/guests/nic.sh
grep -h '^test result' "$rack_run/one.console" | tr -d '\r'
