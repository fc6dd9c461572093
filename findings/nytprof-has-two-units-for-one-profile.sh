#!/usr/bin/env bash
# In which unit Perl's profiler, Devel::NYTProf 6.12 (Debian 12), says how long a function ran.
#
# A good guess: in one, whichever of its tools writes it down. Seen: `nytprofcalls`, the way to a flame graph, writes collapsed
# stacks in hundreds of nanoseconds, and `nytprofcg` writes callgrind's format in microseconds, of the same file: a function of 1
# s ends in 10000000 in one and 1000000 in the other. Neither says so: the text has no header, the event is called `Ticks` as that
# of other programs in other units is, and there is no `creator:` line by which it could be told from theirs. Both are wall time,
# waits included.
#
# So Emberline reads the collapsed stacks with `kind=wall&sample_rate=10000000`, which it had refused as too high a rate, and says
# so in `docs/profile-formats.md`.
#
# Needs perl 5.36, apt-get and dpkg of Debian 12. Exits with 1 when NYTProf behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download libdevel-nytprof-perl=6.12+dfsg-1 >/dev/null 2>&1
dpkg -x libdevel-nytprof-perl_*.deb root
export PERL5LIB=$PWD/root/usr/lib/x86_64-linux-gnu/perl5/5.36:$PWD/root/usr/share/perl5
cat >shop.pl <<'PERL'
use strict;
use Time::HiRes qw(time);

sub price {
    select undef, undef, undef, 1;
}

my $begun = time;
price();
open my $spent, '>', 'spent' or die;
print $spent int((time - $begun) * 1e6);
PERL
# What waits is given to the function that waits, and not to a function of its own.
NYTPROF=slowops=0 perl -d:NYTProf shop.pl
perl root/usr/bin/nytprofcalls nytprof.out >calls 2>/dev/null
perl root/usr/bin/nytprofcg --file nytprof.out --out callgrind >/dev/null
perl -MDevel::NYTProf::Core -e 'print "Devel::NYTProf $Devel::NYTProf::Core::VERSION\n"'
calls=$(awk '$1 == "main::price" { print $2 }' calls)
ticks=$(awk '/^fn=main::price$/ { getline; print $2 }' callgrind)
spent=$(cat spent)
echo "main::price by the clock: $spent us; in collapsed stacks: $calls; in callgrind's format: $ticks"
grep -E '^(creator|events)' callgrind
if grep -q '^creator' callgrind; then echo "there is a creator now"; exit 1; fi
# Within a fifth of the clock.
[ $((calls * 10 / spent)) -ge 80 ] && [ $((calls * 10 / spent)) -le 120 ]
[ $((ticks * 100 / spent)) -ge 80 ] && [ $((ticks * 100 / spent)) -le 120 ]
