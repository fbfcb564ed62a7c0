# shellcheck shell=bash disable=SC2154
# Publishers write by RDMA into the pool windows of brokers on both hosts; subscribers on host b, over
# verbs and through its own mapping of the device, see one order.
set -euo pipefail

program=$(test_binary landfall-hw-tests two_hosts)
binaries
give "RACK_PROGRAM=$program"
boot a hw-tests/rack/guests/program.sh order_across_hosts_a
boot b hw-tests/rack/guests/program.sh order_across_hosts_b
wait_both
