#!/usr/bin/env bash
# `jfr print --json` of OpenJDK 17 cuts every stack to 5 frames and says so nowhere: the recording holds them whole, the field
# `truncated` of the JSON stays false, and only `--stack-depth N` shows the rest. Whoever converts recordings through this JSON
# loses every root.
set -euo pipefail
version='17.0.21.1+2-1~deb12u1' # of Debian 12
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq "openjdk-17-jre-headless=$version" "openjdk-17-jdk-headless=$version" 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
home=$work/root/usr/lib/jvm/java-17-openjdk-amd64
# What the packages link into /etc lies beside them here.
find "$home" -type l -lname '/etc/java-17-openjdk*' | while read -r link; do
    ln -sfn "$work/root$(readlink "$link")" "$link"
done
"$home/bin/java" -version 2>&1 | head -1
cat >Deep.java <<'JAVA'
public class Deep {
    static long down(int depth) {
        if (depth > 0) return down(depth - 1) + 1;
        long sum = 1, end = System.nanoTime() + 1_500_000_000L;
        while (System.nanoTime() < end) for (int at = 1; at < 10_000; at++) sum = sum * 31 + Long.numberOfTrailingZeros(sum ^ at);
        return sum;
    }
    public static void main(String[] arguments) { System.out.println(down(20)); }
}
JAVA
"$home/bin/java" -XX:StartFlightRecording=settings=profile,filename=deep.jfr Deep.java >/dev/null 2>&1
look() { # frames of the deepest stack, and how often `truncated` is true
    "$home/bin/jfr" print --json --events jdk.ExecutionSample "$@" deep.jfr | python3 -c '
import json, sys
stacks = [event["values"]["stackTrace"] for event in json.load(sys.stdin)["recording"]["events"]]
print(max(len(stack["frames"]) for stack in stacks), sum(stack["truncated"] for stack in stacks))'
}
read -r frames truncated <<<"$(look)"
read -r whole _ <<<"$(look --stack-depth 64)"
echo "jfr print --json:                  at most $frames frames, truncated: $truncated times"
echo "jfr print --json --stack-depth 64: at most $whole frames"
[ "$frames" = 5 ] && [ "$truncated" = 0 ] && [ "$whole" -gt 20 ]
