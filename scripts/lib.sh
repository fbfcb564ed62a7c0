# shellcheck shell=bash
# What the scripts share. Sourced, never run.
set -euo pipefail

# say TEXT...: a line for people, on stderr, so that stdout stays for data.
say() {
  printf '%s\n' "$*" >&2
}

# ensure_debian PACKAGE...: installs by apt-get those that are missing; asks for nothing if none is.
ensure_debian() {
  local package as_root=() missing=()
  for package in "$@"; do
    # Looked at by its text: a package that was removed but left its settings also has status 0.
    case "$(dpkg -s "$package" 2>/dev/null || true)" in
      *"Status: install ok installed"*) ;;
      *) missing+=("$package") ;;
    esac
  done
  [ "${#missing[@]}" -gt 0 ] || return 0

  if ! command -v apt-get >/dev/null; then
    say "Missing, and there is no apt-get to install it with: ${missing[*]} (Debian's names)."
    say "Install what your system calls these, then run this again."
    return 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "Missing: ${missing[*]}. Installing needs root, and there is no sudo."
      say "Run as root: apt-get update && apt-get install ${missing[*]}"
      return 1
    fi
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  # Updated first: a fresh image has no package lists, and old lists name files that are gone.
  if ! "${as_root[@]}" apt-get update -q >&2 ||
    ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${missing[@]}" >&2; then
    say "Could not install ${missing[*]}; the lines above say why."
    say "Run as root: apt-get update && apt-get install ${missing[*]}"
    return 1
  fi
}

# ensure_toolchain: cargo on the path and a linker for it, which is all that a build needs.
ensure_toolchain() {
  if ! command -v cargo >/dev/null; then
    # Where rustup puts it; a shell that is not a login shell may not have it on its path.
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
  fi
  if ! command -v cargo >/dev/null; then
    say "There is no cargo: install a Rust toolchain (Cargo.toml names the version), then run" \
      "this again."
    return 1
  fi
  command -v cc >/dev/null || ensure_debian build-essential pkg-config
}
