# shellcheck shell=bash disable=SC2154 # setup.sh assigns rack_home and the like
# The hosts of a rack, from outside. A scenario calls these; so does scripts/rack. Each run has a
# folder, $rack_run, with a console log per host, and in it $rack_share, which the hosts see under
# the same name and may write.
set -euo pipefail

declare -A rack_pid=() rack_ends=() rack_up_ends=() rack_boots=()

# A hung host is cut off after this long; a guard, not a measure.
rack_bound_s=${LANDFALL_RACK_BOUND_S:-900}
# Emulated processors sometimes lose each other while a kernel starts on them, before anything of
# ours runs. A host that is not up after this long, some ten times what it takes, is booted again.
rack_up_s=${LANDFALL_RACK_UP_S:-120}
rack_boots_most=3
# A multiple of 256, the unit of a CXL window. Costs memory only as it is written.
rack_cxl_mib=${LANDFALL_RACK_CXL_MIB:-512}

# new_run NAME: the folder, and the memory device that all its hosts share.
new_run() {
  local left owner free_mib
  # What runs left that were killed: the number in the name is the process that made it.
  for left in /dev/shm/landfall-rack.* /tmp/landfall-rack.*; do
    owner=${left#*/landfall-rack.}
    # Another user's are not ours to remove.
    [ -d "/proc/${owner%%.*}" ] || [ ! -O "$left" ] || rm -rf "$left"
  done
  find "$rack_home" -maxdepth 1 -name 'run-*' -mmin +1440 -exec rm -rf {} +

  rack_run=$(mktemp -d "$rack_home/run-$1-XXXXXX")
  rack_share=$rack_run/share
  mkdir "$rack_share"
  : >"$rack_share/environment"
  # Sockets have short names only, so not in the run's folder.
  rack_wire=$(mktemp -d "/tmp/landfall-rack.$$.XXXXXX")
  rack_cxl=$rack_run/cxl
  free_mib=$(df --output=avail -B 1M /dev/shm 2>/dev/null | tail -n 1) || true
  if [ "${free_mib:-0}" -gt $((2 * rack_cxl_mib)) ]; then
    rack_cxl=/dev/shm/${rack_wire##*/}
  fi
  truncate -s "${rack_cxl_mib}M" "$rack_cxl"
}

# Takes away what a run needs only while it lasts. Its logs stay for a day.
drop_run() {
  rm -rf "$rack_cxl" "$rack_wire"
}

# Every host off at once.
all_off() {
  local host
  for host in "${!rack_pid[@]}"; do
    cut_power "$host"
  done
}

# give NAME=VALUE...: what the hosts booted from now on have in their environment.
give() {
  local pair
  for pair in "$@"; do
    printf '%s=%q\n' "${pair%%=*}" "${pair#*=}" >>"$rack_share/environment"
  done
}

# test_binary CRATE [TEST]: builds the test program (without a name, of the unit tests), and prints
# where it is.
test_binary() {
  local which=(--lib) lines path
  [ $# -lt 2 ] || which=(--test "$2")
  lines=$(cargo test --locked --no-run -q -p "$1" "${which[@]}" --message-format=json) || return 1
  # A line for each thing built, of which one is a program built as a test.
  path=$(sed -n '/"profile":{[^}]*"test":true/s/.*"executable":"\([^"]*\)".*/\1/p' <<<"$lines")
  if [ -z "$path" ]; then
    say "cargo names no program for the tests ${2:-in src} of $1"
    return 1
  fi
  printf '%s\n' "$path"
}

# Builds the programs of the workspace, and tells the hosts where they are: RACK_BIN.
binaries() {
  cargo build --locked -q --workspace --bins
  give "RACK_BIN=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)"
}

# connect HOST: sets rack_address, rack_peer and rack_nic, which are qemu's words for its network.
connect() {
  local wire
  case "$1" in
    one)
      rack_address=10.77.0.1 rack_peer=10.77.0.1 rack_nic=()
      return
      ;;
    # Either may go down and come back: the one listens, the other calls again.
    a) rack_address=10.77.0.1 rack_peer=10.77.0.2 wire=server=on ;;
    b) rack_address=10.77.0.2 rack_peer=10.77.0.1 wire=server=off,reconnect-ms=500 ;;
    *)
      say "A rack's hosts are called one, a and b, not $1."
      return 1
      ;;
  esac
  rack_nic=(
    -netdev "stream,id=n0,$wire,addr.type=unix,addr.path=$rack_wire/net"
    -device "virtio-net-pci,bus=pcie.0,romfile=,netdev=n0,mac=52:54:00:77:00:0${rack_address##*.}"
  )
}

# boot HOST SCRIPT [ARGUMENT...]: starts a host, which runs the script and goes off. HOST is `one`,
# alone with an RDMA device that reaches itself, or `a` or `b`, whose devices reach each other.
boot() {
  local host=$1 command=("${@:2}") rack_address rack_peer rack_nic
  connect "$host"
  if [ -f "$2" ]; then
    command[0]=$(realpath "$2")
    [ -x "$2" ] || command=(bash "${command[@]}")
  fi
  printf '%s=%q\n' RACK_ROOT "$PWD" RACK_SHARE "$rack_share" RACK_KERNEL "$rack_kernel" \
    RACK_ADDRESS "$rack_address" RACK_PEER "$rack_peer" RACK_CXL_MIB "$rack_cxl_mib" \
    >"$rack_share/$host.start"
  printf '%q ' "${command[@]}" >"$rack_share/$host.command"
  rack_boots[$host]=0
  rack_ends[$host]=$((SECONDS + rack_bound_s))
  power_on "$host"
}

# power_on HOST: starts it with what `boot` wrote down for it.
power_on() {
  local host=$1 rack_address rack_peer rack_nic
  connect "$host"
  rm -f "$rack_share/$host.status" "$rack_share/$host.up"
  # Emulated, never by KVM: where its device exists, guests may still hang (nested virtualisation),
  # and a rack that behaves differently from machine to machine is no test.
  # All that a CPU can have but rep-string copies, a fifth level of page tables and protection keys:
  # with those the emulator takes up to twice as long.
  # A CPU that shows it is emulated would not be trusted to flush its caches when a region is
  # committed: hypervisor=off. Killed with the shell that started it, so that none is left behind.
  setpriv --pdeathsig KILL qemu-system-x86_64 -name "rack-$host" \
    -accel tcg,thread=multi -cpu max,hypervisor=off,erms=off,fsrm=off,la57=off,pku=off,pks=off \
    -M q35,cxl=on -m 4G,maxmem=16G,slots=8 -smp 2 \
    -nodefaults -display none -monitor none -no-reboot \
    -kernel "$(echo "$rack_kernel"/boot/vmlinuz-*)" -initrd "$rack_initramfs" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off RACK_HOST=$host" \
    -chardev "file,id=console,append=on,path=${rack_run//,/,,}/$host.console" \
    -serial chardev:console \
    -virtfs local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=${rack_share//,/,,},mount_tag=share,security_model=none,multidevs=remap" \
    -object "memory-backend-file,id=cm0,share=on,mem-path=${rack_cxl//,/,,},size=${rack_cxl_mib}M" \
    -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1 \
    -device cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2 \
    -device cxl-type3,bus=rp0,volatile-memdev=cm0,id=cxl-mem0,sn=0x1 \
    -M cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G \
    "${rack_nic[@]}" </dev/null >>"$rack_run/$host.qemu" 2>&1 &
  rack_pid[$host]=$!
  rack_up_ends[$host]=$((SECONDS + rack_up_s))
  rack_boots[$host]=$((rack_boots[$host] + 1))
}

# runs HOST: whether it is on, and within its bound; if beyond, its power is cut.
runs() {
  [ -n "${rack_pid[$1]:-}" ] && kill -0 "${rack_pid[$1]}" 2>/dev/null || return 1
  if [ ! -e "$rack_share/$1.up" ] && [ "$SECONDS" -ge "${rack_up_ends[$1]}" ] &&
    [ "${rack_boots[$1]}" -lt "$rack_boots_most" ]; then
    say "Host $1 is not up after $rack_up_s s; it is booted again."
    cut_power "$1"
    power_on "$1"
  fi
  [ "$SECONDS" -ge "${rack_ends[$1]}" ] || return 0
  say "Host $1 still runs after $rack_bound_s s; cut off."
  cut_power "$1"
  return 1
}

# cut_power HOST: it is gone at once, as it would be with its plug pulled.
cut_power() {
  [ -n "${rack_pid[$1]:-}" ] || return 0
  kill -KILL "${rack_pid[$1]}" 2>/dev/null || true
  wait "${rack_pid[$1]}" 2>/dev/null || true
  unset "rack_pid[$1]"
}

# wait_host HOST: until it goes off; its script's exit status, or 1 if it had no time to report one.
wait_host() {
  local status=1
  while runs "$1"; do sleep 0.1; done
  cut_power "$1" # off already; this takes it off the list
  [ ! -f "$rack_share/$1.status" ] || status=$(cat "$rack_share/$1.status")
  [ "$status" = 0 ] || say "Host $1: exit status $status"
  return "$status"
}

# wait_for FILE: until a host has made it in the share. Fails when no host is left that could.
wait_for() {
  local host left
  while [ ! -e "$rack_share/$1" ]; do
    left=0
    for host in "${!rack_pid[@]}"; do
      ! runs "$host" || left=1
    done
    if [ "$left" -eq 0 ] && [ ! -e "$rack_share/$1" ]; then
      say "No host runs any more, and none made $1."
      return 1
    fi
    sleep 0.1
  done
}

# rack_one SCRIPT [ARGUMENT...]: a single host, from boot to its verdict.
rack_one() {
  boot one "$@"
  wait_host one
}

# rack_two SCRIPT_A SCRIPT_B: two hosts with one memory device, from boot to the verdict of both.
rack_two() {
  boot a "$1"
  boot b "$2"
  wait_both
}

# Until a and b are off. When one fails, the other may wait for it for ever: it is cut off.
wait_both() {
  local host other waited
  while runs a && runs b; do sleep 0.1; done
  host=a other=b
  if runs a; then host=b other=a; fi
  if ! wait_host "$host"; then
    # Long enough for it to fail by itself, and say why.
    for ((waited = 0; waited < 100; waited++)); do
      runs "$other" || break
      sleep 0.1
    done
    cut_power "$other"
    return 1
  fi
  wait_host "$other"
}
