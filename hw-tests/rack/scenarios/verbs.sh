# shellcheck shell=bash disable=SC2154
# The conformance list over RDMA, and what a NIC has to refuse, on one host with soft-RoCE. The other
# grant modes, four brokers and readers that read by themselves have the parts that differ.
set -euo pipefail

# The longest list there is: ten minutes on two cores that have nothing else to do.
rack_bound_s=$((2 * rack_bound_s))

program=$(test_binary landfall-hw-tests verbs)
binaries
give "RACK_PROGRAM=$program"
rack_one hw-tests/rack/guests/program.sh \
  window_1_broker::bytes window_1_broker::order window_1_broker::token window_1_broker::sessions \
  window_1_broker::pressure window_1_broker::retention window_1_broker::crashes \
  window_1_broker::takeover window_1_broker::durable window_1_broker::catch_up \
  window_1_broker::cold window_1_broker::rewrite window_1_broker::poison \
  window_1_broker::hostile window_1_broker::tools refused:: \
  window_4_brokers::order window_4_brokers::token window_4_brokers::crashes::a_broker \
  window_4_brokers::crashes::everything \
  open_1_broker::bytes open_1_broker::crashes::a_broker open_1_broker::rewrite \
  pull_1_broker::bytes pull_1_broker::order::strong pull_1_broker::token pull_1_broker::pressure \
  pull_1_broker::crashes::a_broker \
  one_sided_1_broker::bytes one_sided_1_broker::order one_sided_1_broker::token \
  one_sided_1_broker::retention one_sided_1_broker::catch_up one_sided_1_broker::cold
grep -h '^test result' "$rack_run/one.console" | tr -d '\r'
