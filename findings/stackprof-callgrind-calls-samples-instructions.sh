#!/usr/bin/env bash
# StackProf 0.2.21 (Debian 12, ruby-stackprof) writes `events: Instructions` into callgrind files. The numbers are samples; how
# far apart they were asked for stands only in a description (`desc: mode: cpu(10000)`). kcachegrind and other readers show
# them as instructions executed, a handful for a second of work.
#
# Needs ruby 3.1, apt-get and dpkg of Debian 12. Exits with 1 when StackProf behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download ruby-stackprof=0.2.21-2+b1 >/dev/null 2>&1
dpkg -x ruby-stackprof_*.deb .
export RUBYLIB="$folder/usr/lib/ruby/vendor_ruby:$(dirname "$(find "$folder" -name stackprof.so | head -1)" | sed 's,/stackprof$,,')"
cat >app.rb <<'RB'
require 'stackprof'

def work
  total = 0
  6_000_000.times { |number| total += number % 7 }
  total
end

StackProf.run(mode: :cpu, interval: 10_000, out: 'profile.dump') { work }
data = Marshal.load(File.binread('profile.dump'))
puts "StackProf #{StackProf::VERSION} | samples: #{data[:samples]}"
StackProf::Report.new(data).print_callgrind(File.open('profile.callgrind', 'w'))
RB
ruby app.rb | tee said
grep -E '^(creator|desc|events|summary)' profile.callgrind
samples=$(sed 's/.*samples: //' said)
grep -qx 'events: Instructions' profile.callgrind && grep -qx "summary: $samples" profile.callgrind
echo "the total of 'Instructions' is the number of samples: $samples"
