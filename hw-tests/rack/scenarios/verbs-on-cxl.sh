# shellcheck shell=bash disable=SC2154
# The same with the pool on a CXL device, /dev/dax0.0: NICs pin it, batches land in it. The emulator
# traps every access to it, so there are few.
set -euo pipefail

program=$(test_binary landfall-hw-tests verbs)
binaries
give "RACK_PROGRAM=$program"
rack_one hw-tests/rack/guests/on-cxl.sh \
  window_1_broker::bytes window_1_broker::order::strong window_1_broker::crashes \
  pull_1_broker::bytes::random refused::rdma::a_fenced
grep -h '^test result' "$rack_run/one.console" | tr -d '\r'
