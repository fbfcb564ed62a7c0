# shellcheck shell=bash disable=SC2154
# What the tool says of a host with RDMA and CXL memory, and what a broker refuses there in the same
# words.
set -euo pipefail

binaries
rack_one hw-tests/rack/guests/doctor.sh
