"""Writes the same program in each language twice, as two releases of it: the second has lines and functions more."""
import os, sys

N = 40  # pieces of each kind


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def c(build):
    pad = "\n" * (build * 7)
    shop = ['#include <stdlib.h>', '#include <stdio.h>', pad, "int sink;", "void fail(int) __attribute__((cold, noreturn));",
            "void fail(int n) { printf(\"%d\", n); abort(); }"]
    if build == 2:
        shop.append("__attribute__((noinline)) int added(int n) { return n * 3; }")
    calls = []
    for i in range(N):
        # A constant argument, an unused one, a cold end, a part worth splitting, a target clone.
        shop.append(f"""static __attribute__((noinline)) int constant_{i:03}(int a, int b) {{ for (int k = 0; k < a; k++) sink += k * b + {i}; return sink; }}
static __attribute__((noinline)) int scalar_{i:03}(int *a, int unused) {{ sink += *a * {i + 3}; return sink ^ *a; }}
__attribute__((noinline)) int cold_{i:03}(int a) {{ if (__builtin_expect(a > {i + 100}, 0)) {{ printf("much %d\\n", a); fail(a); }} sink += a * a; return sink + {i}; }}
static int part_{i:03}(int a) {{ if (a < {i}) return a; for (int k = 0; k < a; k++) {{ sink += k ^ {i}; printf("%d", sink); if (sink > k) printf("."); }} return sink; }}
__attribute__((target_clones("default", "avx2"), noinline)) int target_{i:03}(int *a, int n) {{ int s = 0; for (int k = 0; k < n; k++) s += a[k] * {i}; return s; }}
static __attribute__((noinline)) int plain_{i:03}(int a) {{ sink -= a; return sink * {i}; }}""")
        calls.append(f"""n += constant_{i:03}(n, {i + 7}); n += scalar_{i:03}(&n, n); n += cold_{i:03}(n); n += part_{i:03}(n) + part_{i:03}(n + 1) + part_{i:03}(n * 2); n += target_{i:03}(v, 16); n += plain_{i:03}(n);""")
    if build == 2:
        calls.insert(0, "n += added(n);")
    shop.append("int main(int n, char **a) { int v[16] = {n}; " + "\n".join(calls) + " return n; }")
    return {"c/shop.c": "\n".join(shop)}


def cxx(build):
    pad = "\n" * (build * 5)
    out = ["#include <string>", "#include <vector>", "#include <cstdio>", "#include <algorithm>", pad, "namespace shop { int sink;"]
    if build == 2:
        out.append("__attribute__((noinline)) int added(int n) { return n + 1; }")
    calls = []
    for i in range(N):
        out.append(f"""__attribute__((noinline)) std::string text_{i:03}(const std::string &a, int b) {{ sink += b; return a + std::to_string(b + {i}); }}
template <typename T> __attribute__((noinline)) T generic_{i:03}(T a) {{ sink += (int)a; return a * {i + 1}; }}
struct Cart_{i:03} {{ int n; __attribute__((noinline)) int total(int k) const {{ sink += k; return n * k + {i}; }} bool operator<(const Cart_{i:03} &o) const {{ return n < o.n; }} virtual ~Cart_{i:03}(); }};
Cart_{i:03}::~Cart_{i:03}() {{ sink += {i}; }}
namespace {{ __attribute__((noinline)) int hidden_{i:03}(int a, int b) {{ for (int k = 0; k < a; k++) sink += k * b; return sink + {i}; }} }}
__attribute__((noinline)) int closure_{i:03}(std::vector<int> &v) {{ auto f = [&](int x) __attribute__((noinline)) {{ sink += x; return x > {i}; }}; return (int)std::count_if(v.begin(), v.end(), f) + f(3); }}
__attribute__((noinline)) int throws_{i:03}(int a) {{ std::string s(a, 'x'); if (a > {i + 90}) throw s; sink += (int)s.size(); return sink; }}""")
        calls.append(f"""s = text_{i:03}(s, n); n += generic_{i:03}(n) + (int)generic_{i:03}(1.5 * n) + (int)generic_{i:03}<long>(n); {{ Cart_{i:03} c{{}}; n += c.total(n); }} n += hidden_{i:03}(n, {i + 5}); n += closure_{i:03}(v); n += throws_{i:03}(n);""")
    out.append("}\nusing namespace shop;\nint main(int n, char **) { std::string s; std::vector<int> v(9, n);" + "\n".join(calls) + " return n + (int)s.size(); }")
    return {"cxx/shop.cc": "\n".join(out)}


def rust(build):
    out = ["#![allow(dead_code)]", "use std::hint::black_box as bb;", "\n" * (build * 3), "mod pay {"]
    out.append("pub trait Priced { fn price(&self, n: u64) -> u64; }")
    if build == 2:
        out.append("#[inline(never)] pub fn added(n: u64) -> u64 { super::bb(n) * 3 }")
    calls = []
    for i in range(N):
        out.append(f"""
#[inline(never)] pub fn plain_{i:03}(n: u64) -> u64 {{ super::bb(n) * {i + 1} }}
#[inline(never)] pub fn generic_{i:03}<T: Copy + Into<u64>>(n: T) -> u64 {{ super::bb(n).into() + {i} }}
pub struct Cart{i:03}(pub u64);
impl Cart{i:03} {{ #[inline(never)] pub fn total(&self, n: u64) -> u64 {{ super::bb(self.0) * n + {i} }} }}
impl Priced for Cart{i:03} {{ #[inline(never)] fn price(&self, n: u64) -> u64 {{ super::bb(self.0 ^ n) + {i} }} }}
#[inline(never)] pub fn closure_{i:03}(n: u64) -> u64 {{ let f = |x: u64| super::bb(x) + n + {i}; super::bb(&f as &dyn Fn(u64) -> u64)(n) }}
#[inline(never)] fn hidden_{i:03}(n: u64) -> u64 {{ super::bb(n) - {i} }}
#[inline(never)] pub fn shows_{i:03}(n: u64) -> u64 {{ hidden_{i:03}(n) }}""")
        calls.append(f"n += pay::plain_{i:03}(n); n += pay::generic_{i:03}(n as u32); n += pay::generic_{i:03}(n as u8); let c = pay::Cart{i:03}(n); n += c.total(n); n += pay::Priced::price(&c, n); n += pay::closure_{i:03}(n); n += pay::shows_{i:03}(n);")
    if build == 2:
        calls.insert(0, "n += pay::added(n);")
    out.append("}\nfn main() { let mut n = std::env::args().count() as u64;\n" + "\n".join(calls) + "\nprintln!(\"{n}\"); }")
    return {"rust/main.rs": "\n".join(out)}


def go(build):
    out = ["package main", "import (\"fmt\"; \"os\"; \"sort\"; \"shop.example/shop/price\")", "\n" * (build * 4), "var sink int"]
    lib = ["package price", "\n" * (build * 2)]
    calls = []
    if build == 2:
        out.append("//go:noinline\nfunc added(n int) int { f := func() int { return n * 3 }; defer func() { sink++ }(); return f() }")
    for i in range(N):
        out.append(f"""
//go:noinline
func plain{i:03}(n int) int {{ sink += n; return n * {i + 1} }}
//go:noinline
func generic{i:03}[T int | float64 | string](a []T) int {{ sink += len(a); return len(a) + {i} }}
type cart{i:03} struct {{ n int }}
//go:noinline
func (c *cart{i:03}) total(k int) int {{ sink += k; return c.n * k + {i} }}
type list{i:03}[T any] struct {{ items []T }}
//go:noinline
func (l *list{i:03}[T]) push(x T) int {{ l.items = append(l.items, x); return len(l.items) }}
//go:noinline
func handler{i:03}(n int) func(int) int {{ return func(k int) int {{ sink += k; g := func() int {{ sink += n; return n + k }}; return run(g) + {i} }} }}
//go:noinline
func deferred{i:03}(n int) (r int) {{ defer func() {{ r += sink }}(); go plain{i:03}(n); return n }}""")
        lib.append(f"""
//go:noinline
func Total{i:03}(n int) int {{ return n * {i + 1} }}""")
        calls.append(f"n += plain{i:03}(n); n += generic{i:03}([]int{{n}}) + generic{i:03}([]string{{\"\"}}); c{i} := &cart{i:03}{{n}}; m{i} := c{i}.total; n += apply(m{i}, n); l{i} := &list{i:03}[int]{{}}; n += l{i}.push(n); s{i} := &list{i:03}[string]{{}}; n += s{i}.push(\"a\"); n += apply(handler{i:03}(n), n); n += deferred{i:03}(n); n += price.Total{i:03}(n)")
    if build == 2:
        calls.insert(0, "n += added(n)")
    out.append("//go:noinline\nfunc run(f func() int) int { return f() }\n//go:noinline\nfunc apply(f func(int) int, n int) int { return f(n) }")
    out.append("func main() { n := len(os.Args); sort.Ints(nil)\n" + "\n".join(calls) + "\nfmt.Println(n) }")
    return {"go/main.go": "\n".join(out), "go/price/price.go": "\n".join(lib), "go/go.mod": "module shop.example/shop\n\ngo 1.19\n"}


def java(build):
    out = ["package shop;", "import java.util.*;", "import java.util.function.*;", "import java.lang.reflect.*;", "\n" * build]
    out.append("""interface Priced { int price(int n); }
public class Main {
  static int sink;
  static void show() {
    StackWalker.getInstance(Set.of(StackWalker.Option.SHOW_HIDDEN_FRAMES, StackWalker.Option.SHOW_REFLECT_FRAMES)).forEach(
      f -> System.out.println(f.getClassName().replace('.', '/') + "." + f.getMethodName()));
  }""")
    calls = []
    if build == 2:
        # Every lambda and every anonymous class after these gets another number.
        out.append("static int added(int n) { Supplier<Integer> s = () -> { show(); return 1; }; Runnable r = new Runnable() { public void run() { show(); } }; r.run(); return n + s.get(); }")
        calls.append("n += added(n);")
    for i in range(N):
        out.append(f"""
  static int plain{i:03}(int n) {{ show(); return n * {i + 1}; }}
  static int lambda{i:03}(int n) {{ IntUnaryOperator f = x -> {{ show(); return x + n; }}; return f.applyAsInt(n); }}
  static int reference{i:03}(int n) {{ IntUnaryOperator f = Main::plain{i:03}; return f.applyAsInt(n); }}
  static int anonymous{i:03}(int n) {{ Supplier<Integer> s = new Supplier<Integer>() {{ public Integer get() {{ show(); return inner{i:03}(n); }} }}; return s.get(); }}
  static int inner{i:03}(int n) {{ show(); return n; }}
  public static int reflected{i:03}(Integer n) {{ show(); return n; }}
  static int proxied{i:03}(int n) {{ Priced p = (Priced) Proxy.newProxyInstance(Main.class.getClassLoader(), new Class<?>[]{{Priced.class}}, (o, m, a) -> {{ show(); return 1; }}); return p.price(n); }}
  static class Cart{i:03} {{ int total(int n) {{ show(); return n + {i}; }} class Item {{ int price(int n) {{ show(); return n; }} }} }}""")
        # The accessor of reflection is generated after 15 calls.
        calls.append(f"n += plain{i:03}(n); n += lambda{i:03}(n); n += reference{i:03}(n); n += anonymous{i:03}(n); for (int k = 0; k < 18; k++) n += (Integer) Main.class.getMethod(\"reflected{i:03}\", Integer.class).invoke(null, n % 7); n += proxied{i:03}(n); n += new Cart{i:03}().total(n); n += new Cart{i:03}().new Item().price(n);")
    for j in range(0, N, 8):
        out.append(f"  static int part{j:03}(int n) throws Exception {{ " + "\n".join(calls[j:j + 8]) + " return n; }")
    if len(calls) > N:
        out.append("  static int part999(int n) throws Exception { " + "\n".join(calls[N:]) + " return n; }")
    parts = "\n".join(f"n += part{j:03}(n);" for j in range(0, N, 8)) + (" n += part999(n);" if len(calls) > N else "")
    out.append("  public static void main(String[] a) throws Exception { int n = a.length;\n" + parts + "\n }\n}")
    return {"java/Main.java": "\n".join(out)}


def js(build):
    out = ["'use strict';", "\n" * (build * 9), "let sink = 0;", "const spin = (n) => { for (let i = 0; i < n * 700; i++) sink = (sink * 31 + i) | 0; return sink; };"]
    if build == 2:
        out.append("function added() { return [1, 2].map((x) => x + spin(1)); }\nadded();")
    lib = ["'use strict';", "// moves\n" * build, "exports.all = {};"]
    names = []
    for i in range(60):
        out.append(f"""
function plain{i:03}(n) {{ sink++; for (let i = 0; i < 90000; i++) sink = (sink * 31 + i) | 0; return sink; }}
const arrow{i:03} = (n) => {{ sink += 2; for (let i = 0; i < 90000; i++) sink = (sink * 33 + i) | 0; return sink; }};
class Cart{i:03} {{ total{i:03}() {{ for (let i = 0; i < 90000; i++) sink = (sink * 35 + i) | 0; return sink; }} get size{i:03}() {{ for (let i = 0; i < 90000; i++) sink = (sink * 37 + i) | 0; return sink; }} }}
const own{i:03} = {{ method{i:03}() {{ for (let i = 0; i < 90000; i++) sink = (sink * 39 + i) | 0; return sink; }} }};
plain{i:03}(1); arrow{i:03}(1); new Cart{i:03}().total{i:03}(); new Cart{i:03}().size{i:03}; own{i:03}.method{i:03}();""")
        lib.append(f"exports.all.run{i:03} = function run() {{ let s = 0; for (let i = 0; i < 90000; i++) s = (s * 31 + i) | 0; return s; }};\nexports.all.run{i:03}();")
    files = {"js/main.js": "\n".join(out + ["require('./src/cart.js');", "require('./src/price.js');"]),
             "js/src/cart.js": "\n".join(lib), "js/src/price.js": "\n".join(lib)}
    return files


def python(build):
    out = ["import functools", "\n" * (build * 6)]
    if build == 2:
        out.append("def added(n):\n    return [x + 1 for x in range(n)]\n")
    for i in range(N):
        out.append(f"""
def plain_{i:03}(n):
    return sum(x + n for x in range(n))

class Cart_{i:03}:
    def total_{i:03}(self, n):
        def nested_{i:03}(k):
            return k + n
        return nested_{i:03}(n)

async def waits_{i:03}(n):
    return n

@functools.lru_cache
def cached_{i:03}(n):
    return n
""")
    lib = "\n" * build + "def run(n):\n    return n\n"
    # What a profiler sees: the code objects as the interpreter compiled them.
    listing = '''
import os, sys, types
HERE = os.path.dirname(os.path.abspath(__file__))
def walk(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from walk(constant)
for file in ("main.py", "shop/cart.py", "shop/price.py"):
    path = os.path.join(HERE, file)
    for code in walk(compile(open(path).read(), path, "exec")):
        if not code.co_name.startswith("<"):
            print(f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})\\t")
'''
    return {"python/main.py": "\n".join(out), "python/shop/cart.py": lib, "python/shop/price.py": lib, "python/list.py": listing}


def ruby(build):
    out = ["\n" * (build * 5), "def show; caller_locations.each { |l| puts \"#{l.label}\\t#{l.path}\" }; end"]
    if build == 2:
        out.append("def added; [1].each { show }; end\nadded")
    for i in range(N):
        out.append(f"""
def plain_{i:03}; show; end
class Cart_{i:03}
  def total_{i:03}; show; end
  def each_{i:03}; [1].each {{ |x| [x].each {{ show }} }}; end
  def self.make_{i:03}; [1].map {{ show }}; end
  def saves_{i:03}; begin; raise "x"; rescue; show; ensure; show; end; end
end
plain_{i:03}; Cart_{i:03}.new.total_{i:03}; Cart_{i:03}.new.each_{i:03}; Cart_{i:03}.make_{i:03}; Cart_{i:03}.new.saves_{i:03}""")
    return {"ruby/main.rb": "\n".join(out)}


def php(build):
    out = ["<?php namespace Shop;", "\n" * (build * 5),
           "function show() { foreach (debug_backtrace() as $f) { if (strpos($f['function'], 'show') === false) echo (isset($f['class']) ? $f['class'] . $f['type'] : '') . $f['function'], \"\\t\", __FILE__, \"\\n\"; } }"]
    if build == 2:
        out.append("function added() { return array_map(function ($x) { show(); return $x; }, [1]); } added();")
    for i in range(N):
        out.append(f"""
function plain_{i:03}() {{ show(); }}
class Cart_{i:03} {{ function total_{i:03}() {{ show(); }} static function make_{i:03}() {{ show(); }}
  function later_{i:03}() {{ $f = function () {{ show(); }}; $f(); }}
  function nameless_{i:03}() {{ $o = new class {{ function inside_{i:03}() {{ show(); }} }}; $o->inside_{i:03}(); }} }}
plain_{i:03}(); (new Cart_{i:03})->total_{i:03}(); Cart_{i:03}::make_{i:03}(); (new Cart_{i:03})->later_{i:03}(); (new Cart_{i:03})->nameless_{i:03}();""")
    return {"php/main.php": "\n".join(out)}


for build in (1, 2):
    for language in (c, cxx, rust, go, java, js, python, ruby, php):
        for path, text in language(build).items():
            put(os.path.join(sys.argv[1], f"build-{build}", path), text)
