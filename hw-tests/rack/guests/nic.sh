#!/usr/bin/env bash
# Part of the scenario `nic`.
set -euo pipefail
exec "$RACK_PROGRAM" --ignored
