# shellcheck shell=bash disable=SC2154
# The same with the pool on a CXL device, /dev/dax0.0, which NICs pin and batches land in; also in the
# mode for hosts that do not see each other's caches. The emulator traps every access to it, so there
# are few.
set -euo pipefail

program=$(test_binary landfall-hw-tests verbs)
binaries
give "RACK_PROGRAM=$program"
rack_one hw-tests/rack/guests/on-cxl.sh \
  window_1_broker::bytes window_1_broker::order::strong window_1_broker::crashes \
  pull_1_broker::bytes::random refused::rdma::a_fenced \
  flush_1_broker::bytes flush_1_broker::order::strong
grep -h '^test result' "$rack_run/one.console" | tr -d '\r'
