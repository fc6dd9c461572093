#!/usr/bin/env bash
# StackProf 0.2.21 (Debian 12, ruby-stackprof) asked for a sample each millisecond of CPU takes one each tick of the kernel
# (4 ms where CONFIG_HZ is 250, as Debian's kernels have it), because ITIMER_PROF, on which it rests like the classic profilers
# of C and Go's before 1.18, is looked at once a tick. The file still says an interval of 1,000 us and `missed_samples: 0`, so
# that samples times interval states a quarter of the CPU time. At 10 ms it is right.
#
# Needs ruby 3.1, apt-get and dpkg of Debian 12, and a kernel of less than 1,000 ticks a second. Exits with 1 when StackProf
# behaves otherwise.
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
  15_000_000.times { |number| total += number % 7 }
  total
end

share = [1_000, 10_000].map do |interval|
  clock = -> { Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) }
  before = clock.call
  data = StackProf.run(mode: :cpu, interval: interval) { work }
  spent = clock.call - before
  stated = data[:samples] * data[:interval] / 1e6
  puts "StackProf #{StackProf::VERSION}, interval #{interval} us: #{data[:samples]} samples, missed #{data[:missed_samples]}; " \
       "they state #{stated.round(3)} s of CPU, the process's clock #{spent.round(3)} s"
  exit 1 unless data[:missed_samples].zero?
  stated / spent
end
exit(share[0] < 0.6 && share[1].between?(0.7, 1.3) ? 0 : 1)
RB
ruby app.rb
