#!/usr/bin/perl
# Bytes of a device DAX file, which can be mapped but neither read nor written:
#   dax.pl DEVICE OFFSET put TEXT    dax.pl DEVICE OFFSET get LENGTH
# By system calls, because a base system's perl maps no files. x86-64 only.
use strict;
use warnings;

my ($MMAP, $READ) = (9, 0);
my ($PROT_READ_WRITE, $MAP_SHARED) = (3, 1);
my $ALIGNMENT = 2 << 20; # of a mapping's offset and length

my ($device, $offset, $what, $value) = @ARGV;
my $within = $offset % $ALIGNMENT;
open(my $file, '+<', $device) or die "open $device: $!\n";
my $base = syscall($MMAP, 0, $ALIGNMENT, $PROT_READ_WRITE, $MAP_SHARED, fileno($file),
    $offset - $within);
die "mmap $device at $offset: $!\n" if $base == -1;
my $address = $base + $within;

if ($what eq 'put') {
    # The kernel copies what a pipe holds to the address.
    pipe(my $reader, my $writer) or die "pipe: $!\n";
    syswrite($writer, $value);
    my $count = syscall($READ, fileno($reader), $address, length $value);
    die "copy to $device at $offset: $!\n" if $count != length $value;
} else {
    print unpack("P$value", pack('Q', $address)), "\n";
}
