# shellcheck shell=bash
# What a rack is made of: Debian's packages, an unpacked kernel, and the first file system of the
# guests. Sourced by scripts/rack, after scripts/lib.sh; kept under target/rack.
set -euo pipefail

rack_home=$PWD/target/rack
rack_apt=/etc/apt
# The oldest Linux and QEMU in which volatile CXL regions are known to work.
rack_linux_least=6.12
rack_qemu_least=10.0

# What the guests load before they enter the machine's own file system. The kernel cannot load
# these for itself when it needs them: crc32_generic goes before rdma_rxe, which fails without it,
# and veth before the first `ip link add ... type veth`.
rack_modules=(virtio_pci 9pnet_virtio 9p overlay virtio_net veth crc32_generic ib_uverbs
  rdma_ucm rdma_rxe cxl_acpi cxl_pci cxl_port cxl_mem device_dax dax_cxl)

# The suite that has both: stable itself since Debian 13, its backports before.
rack_suite() {
  local ID=none VERSION_ID=none VERSION_CODENAME=none PRETTY_NAME="this system"
  # shellcheck source=/dev/null
  . /etc/os-release
  case "$ID $VERSION_ID" in
    "debian 12") echo "$VERSION_CODENAME-backports" ;;
    "debian none" | "debian 1"[3-9] | "debian "[2-9][0-9]) echo "$VERSION_CODENAME" ;;
    *)
      say "The rack takes QEMU >= $rack_qemu_least and Linux >= $rack_linux_least from Debian 12" \
        "or later; this is $PRETTY_NAME."
      return 1
      ;;
  esac
}

# apt_sources SUITE [AS]: the first of the machine's sources that has the suite, in apt's own
# words; with AS, made into a source of that suite. Nothing if there is none.
apt_sources() {
  local file
  for file in "$rack_apt"/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    # Paragraphs, of which `Suites:` may name several; the comments in one are not copied.
    awk -v suite="$1" -v as="${2:-$1}" '
      BEGIN { RS = ""; FS = "\n" }
      /(^|\n)Enabled:[ \t]*no/ || !/(^|\n)Types:[^\n]*deb( |\n|$)/ { next }
      {
        text = ""; found = 0
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^#/) continue
          if ($i ~ /^Suites:/) {
            count = split($i, word, /[ \t]+/)
            for (j = 2; j <= count; j++) if (word[j] == suite) found = 1
            $i = "Suites: " as
          }
          if ($i ~ /^Types:/) $i = "Types: deb"
          text = text $i "\n"
        }
        if (found) { printf "%s", text; exit }
      }' "$file"
  done
  for file in "$rack_apt/sources.list" "$rack_apt"/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    awk -v suite="$1" -v as="${2:-$1}" '
      $1 == "deb" {
        at = 2
        if ($2 ~ /^\[/) while (at < NF && $(at++) !~ /\]$/) continue
        if ($(at + 1) == suite) { $(at + 1) = as; print; exit }
      }' "$file"
  done
}

# ensure_suite SUITE: an apt source for it, made from the one for the release if there is none.
ensure_suite() {
  local source file
  [ -z "$(apt_sources "$1")" ] || return 0
  source=$(apt_sources "${1%-backports}" "$1")
  if [ -z "$source" ]; then
    say "apt has no source for $1, and none for ${1%-backports} to make it from: add one under" \
      "$rack_apt/sources.list.d, then run this again."
    return 1
  fi
  file=$rack_apt/sources.list.d/landfall-backports
  case "$source" in
    Types:* | *$'\n'Types:*) file+=.sources ;;
    *)
      source=$(head -n 1 <<<"$source")
      file+=.list
      ;;
  esac
  say "Adding $1 to apt's sources ($file)"
  printf '%s\n' "$source" | as_root tee "$file" >/dev/null
  as_root apt-get update -q >&2
}

# at_least VERSION LEAST
at_least() {
  [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

ensure_rack_packages() {
  local suite version
  if [ "$(uname -m)" != x86_64 ]; then
    say "The rack's hosts are x86-64 machines that run this machine's programs; this is" \
      "$(uname -m)."
    return 1
  fi
  ensure_debian busybox-static kmod cpio rdma-core ibverbs-providers ibverbs-utils perftest \
    libibverbs1 librdmacm1 ndctl daxctl iputils-ping iproute2
  version=$(qemu-system-x86_64 --version 2>/dev/null |
    sed -n '1s/.* version \([0-9.]*\).*/\1/p') || true # there may be none
  if ! at_least "${version:-0}" "$rack_qemu_least"; then
    suite=$(rack_suite)
    ensure_suite "$suite"
    install_debian -t "$suite" qemu-system-x86
  fi
}

# Downloads and unpacks the suite's kernel in the folder named, and prints its release.
unpack_kernel() {
  local package
  package=$(apt-cache show --no-all-versions "linux-image-amd64/$2" |
    sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
  if [ -z "$package" ]; then
    return 1
  fi
  # apt would warn that its own user cannot write here.
  (cd "$1" && apt-get download -q -o APT::Sandbox::User=root "$package/$2" >&2) || return 1
  dpkg -x "$1"/linux-image-*.deb "$1/kernel" || return 1
  rm "$1"/linux-image-*.deb
  [ -d "$1/kernel/lib/modules" ] || ln -s usr/lib "$1/kernel/lib" || return 1
  depmod -b "$1/kernel" "${package#linux-image-}" || return 1
  printf '%s\n' "${package#linux-image-}"
}

# Sets rack_kernel and rack_release: an unpacked kernel, downloaded if none is here yet. It gets its
# name when it is whole, so one that is there can be used, and an interrupted one is begun anew.
ensure_rack_kernel() {
  local work suite
  rack_kernel=$(find "$rack_home" -maxdepth 1 -name 'linux-*' | sort -V | tail -n 1)
  if [ -z "$rack_kernel" ]; then
    suite=$(rack_suite)
    ensure_suite "$suite"
    rm -rf "$rack_home"/fetch-*
    work=$rack_home/fetch-$$
    mkdir "$work"
    say "Downloading the rack's kernel from $suite"
    # The lists may be missing, or name a file that has been replaced since.
    if ! rack_release=$(unpack_kernel "$work" "$suite"); then
      rm -rf "$work"
      mkdir "$work"
      as_root apt-get update -q >&2
      rack_release=$(unpack_kernel "$work" "$suite") || {
        say "Could not get a kernel from $suite; the lines above say why."
        return 1
      }
    fi
    rack_kernel=$rack_home/linux-$rack_release
    mv "$work/kernel" "$rack_kernel"
    rm -rf "$work"
  fi
  rack_release=${rack_kernel##*/linux-}
  if ! at_least "$rack_release" "$rack_linux_least"; then
    say "$rack_kernel is older than $rack_linux_least: remove it, then run this again."
    return 1
  fi
}

# Sets rack_initramfs: busybox, the modules and hw-tests/rack/guest/init, named by what is in it.
ensure_rack_initramfs() {
  local key work module path
  key=$(
    {
      echo "$rack_release ${rack_modules[*]}"
      declare -f ensure_rack_initramfs
      cat hw-tests/rack/guest/init "$(command -v busybox)"
    } | sha256sum
  )
  rack_initramfs=$rack_home/initramfs-${key:0:16}
  [ ! -f "$rack_initramfs" ] || return 0

  rm -rf "$rack_home"/initramfs-*
  work=$rack_initramfs.parts
  mkdir -p "$work"/{bin,sbin,proc,sys,dev,share,machine,layer,root}
  cp "$(command -v busybox)" "$work/bin/busybox"
  cp hw-tests/rack/guest/init "$work/init"
  chmod +x "$work/init"
  for module in "${rack_modules[@]}"; do
    modprobe -d "$rack_kernel" -S "$rack_release" --show-depends "$module"
  done | sed -n 's/^insmod \(.*\.ko[.a-z]*\) .*/\1/p' | sort -u | while IFS= read -r path; do
    module=lib/modules/$rack_release/${path#*"/$rack_release/"}
    install -D -m 644 "$path" "$work/$module"
    case "$module" in
      # Unpacked here, once: an emulated processor takes seconds for it.
      *.xz) busybox unxz "$work/$module" ;;
    esac
  done
  cp "$rack_kernel/lib/modules/$rack_release"/modules.{order,builtin,builtin.modinfo} \
    "$work/lib/modules/$rack_release/"
  depmod -b "$work" "$rack_release"
  printf '%s\n' "${rack_modules[@]}" >"$work/modules"
  (cd "$work" && find . | cpio --quiet -o -H newc) >"$rack_initramfs.part"
  rm -rf "$work"
  mv "$rack_initramfs.part" "$rack_initramfs"
}

# All of it; several may ask at the same time.
ensure_rack() {
  mkdir -p "$rack_home"
  exec {rack_lock}>"$rack_home/lock"
  flock "$rack_lock"
  ensure_rack_packages
  ensure_rack_kernel
  ensure_rack_initramfs
  exec {rack_lock}>&-
}
