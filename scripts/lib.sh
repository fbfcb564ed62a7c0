# shellcheck shell=bash
# What the scripts share. Sourced, never run.
set -euo pipefail

# say TEXT...: a line for people, on stderr, so that stdout stays for data.
say() {
  printf '%s\n' "$*" >&2
}

# as_root COMMAND...: by sudo for who is not root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# install_debian [-t SUITE] PACKAGE...: by apt-get; with a suite, from there what only it has.
install_debian() {
  local from=()
  if [ "$1" = -t ]; then
    from=(-t "$2")
    shift 2
  fi
  if ! command -v apt-get >/dev/null; then
    say "Missing, and there is no apt-get to install it with: $* (Debian's names)."
    say "Install what your system calls these, then run this again."
    return 1
  fi
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    say "Missing: $*. Installing needs root, and there is no sudo."
    say "Run as root: apt-get update && apt-get install ${from[*]} $*"
    return 1
  fi
  say "Installing $*"
  # Updated first: a fresh image has no package lists, and old lists name files that are gone.
  if ! as_root apt-get update -q >&2 ||
    ! as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${from[@]}" "$@" >&2; then
    say "Could not install $*; the lines above say why."
    say "Run as root: apt-get update && apt-get install ${from[*]} $*"
    return 1
  fi
}

# ensure_debian PACKAGE...: installs those that are missing; asks for nothing if none is.
ensure_debian() {
  local package known missing=()
  # Looked at by its text: a package that was removed but left its settings is known too. Named
  # once for each architecture that it is installed for, and not at all where it never was.
  known=$(dpkg-query -W -f '${Package} ${Status}\n' "$@" 2>/dev/null || true)
  for package in "$@"; do
    grep -qxF "$package install ok installed" <<<"$known" || missing+=("$package")
  done
  [ "${#missing[@]}" -eq 0 ] || install_debian "${missing[@]}"
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
