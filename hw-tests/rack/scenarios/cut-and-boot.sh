# shellcheck shell=bash disable=SC2154
# A host loses its power and comes back, while the other stays up: the memory device has kept what
# was written, and the network is whole again.
set -euo pipefail

boot a hw-tests/rack/guests/cut-and-boot.sh
boot b hw-tests/rack/guests/cut-and-boot.sh
wait_for b.written
cut_power b
if [ -e "$rack_share/b.status" ]; then
  say "Host b reported a status: it was not cut off, it went off by itself."
  exit 1
fi
boot b hw-tests/rack/guests/cut-and-boot.sh
wait_both
