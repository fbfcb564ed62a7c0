# shellcheck shell=bash disable=SC2154
# The whole conformance list over RDMA, and what a NIC has to refuse, on one host with soft-RoCE.
set -euo pipefail

program=$(test_binary landfall-hw-tests verbs)
binaries
give "RACK_PROGRAM=$program"
rack_one hw-tests/rack/guests/program.sh
grep -h '^test result' "$rack_run/one.console" | tr -d '\r'
