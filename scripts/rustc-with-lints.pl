#!/usr/bin/perl
# What cargo calls for this repository's own crates where RUSTC_WORKSPACE_WRAPPER names it: Clippy's
# driver compiles as rustc does, and every lint is an error. No shell stands between, since shells
# drop variables like CARGO_BIN_EXE_landfall-broker from the environment.
exec 'clippy-driver', @ARGV, '-D', 'warnings' or die "clippy-driver: $!\n";
