# shellcheck shell=bash disable=SC2154
# Two hosts reach each other by ping and by RDMA, and what one writes to its memory device the other
# reads from its own.
set -euo pipefail

rack_two hw-tests/rack/guests/two-hosts.sh hw-tests/rack/guests/two-hosts.sh
