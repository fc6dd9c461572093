//! Names of two builds: what compilers and runtimes of ten languages gave the same functions, and files of pprof.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use emberline_model::{
    Frame,
    flamebearer::flamebearer,
    function::{frame, function_id, normalise},
    pprof,
    resolve::{ResolvedStacks, StackValue},
    tree::TreeBuilder,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// What makes two frames the same function.
fn key(frame: &Frame) -> u64 {
    function_id(frame)
}

/// `tests/names/generate.sh` wrote these with the real tools.
#[test]
fn real_symbols_of_two_builds_have_one_name_and_those_of_one_build_stay_apart() {
    let text = std::fs::read_to_string(folder("names/symbols.tsv")).unwrap();
    let mut languages: BTreeMap<&str, BTreeMap<&str, BTreeMap<u64, String>>> = BTreeMap::new();
    let mut pairs: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [language, function, name_1, file_1, name_2, file_2] = columns[..] else {
            panic!("{line}");
        };
        *pairs.entry(language).or_default() += 1;
        let keys = languages.entry(language).or_default().entry(function).or_default();
        for (name, file) in [(name_1, file_1), (name_2, file_2)] {
            // PHP writes a NUL into names of classes without one, which a line cannot hold.
            let frame = frame(&name.replace("\\0", "\0"), file, 1);
            let again = emberline_model::function::frame(&frame.function, &frame.file, frame.line);
            assert_eq!(again, frame, "{name}: normalised twice");
            keys.insert(
                key(&frame),
                format!("{} in {}, from {name}", frame.function, frame.file),
            );
        }
    }
    let mut wrong = Vec::new();
    for (language, functions) in &languages {
        assert!(pairs[language] >= 200, "{language}: {} pairs", pairs[language]);
        let mut owners: BTreeMap<u64, &str> = BTreeMap::new();
        for (function, keys) in functions {
            if keys.len() != 1 {
                wrong.push(format!("{language}: {function} is split: {:?}", keys.values()));
            }
            for (&key, name) in keys {
                if let Some(other) = owners.insert(key, function)
                    && other != *function
                {
                    wrong.push(format!("{language}: {other} and {function} are one: {name}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

fn read(file: &Path) -> ResolvedStacks {
    let bytes = std::fs::read(file).expect("a file of this folder");
    let values = pprof::read(&bytes, 1 << 24).expect("a file of pprof");
    pprof::resolve_named(&values[0].profile)
}

#[test]
fn a_function_of_one_source_is_one_in_the_files_of_two_builds() {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder("fixtures/names")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".v1.pb.gz") {
            let other = path.with_file_name(format!("{name}.v2.pb.gz"));
            let functions = [read(&path), read(&other)].map(|all| {
                let of = |f: &Arc<emberline_model::resolve::FunctionInfo>| (f.id, f.name.clone());
                all.functions.iter().map(of).collect::<BTreeSet<_>>()
            });
            assert_eq!(functions[0], functions[1], "{name}");
            assert_eq!(functions[0].len(), 3, "{name}");
            names.insert(name.to_owned());
        }
    }
    assert_eq!(names.len(), 16);
}

#[test]
fn one_name_in_two_files_stays_two_functions_where_the_language_says_so() {
    let resolved = read(&folder("fixtures/names/one-name-two-files.pb.gz"));
    let run: Vec<_> = resolved.functions.iter().filter(|f| f.name == "run").collect();
    assert_eq!(run.len(), 2);
    let modules: BTreeSet<&str> = run.iter().map(|f| f.module.as_str()).collect();
    assert_eq!(modules, BTreeSet::from(["cart.js", "price.js"]));
    // Where a name is all there is to see, it says the file, and reads back as the same function.
    let rows = [(0, 3), (1, 5)].map(|(stack_id, value)| StackValue {
        stack_id,
        side: 0,
        value,
        samples: 1,
    });
    let mut tree = TreeBuilder::new();
    tree.add_named(&resolved, rows);
    let drawn = flamebearer(&tree.finish(None), false);
    let of_level = drawn.levels[2].chunks(4);
    let values: BTreeMap<&str, i64> = of_level.map(|f| (drawn.names[f[3] as usize].as_str(), f[1])).collect();
    assert_eq!(values, BTreeMap::from([("run (cart.js)", 3), ("run (price.js)", 5)]));
    assert_eq!(
        key(&frame("run (cart.js)", "", 0)),
        key(&frame("run", "src/cart.js", 7))
    );
    for (name, one, other, are_two) in [
        ("helper", "/src/a.c", "/src/b.c", true),
        ("run", "/app/cart.py", "/app/price.py", true),
        ("run", "cart.rb", "price.rb", true),
        ("run", "cart.php", "price.php", true),
        // These names say where they stand; macros and generated code put them into several files.
        ("shop::run", "src/a.rs", "src/b.rs", false),
        ("main.run", "/src/a.go", "/src/b.go", false),
        ("shop.Cart.run", "Cart.java", "Cart.kt", false),
        ("Cart#run", "cart.rb", "price.rb", false),
        ("Shop\\Cart::run", "cart.php", "price.php", false),
        ("shop::run(int)", "a.cc", "b.cc", false),
    ] {
        let keys = [one, other].map(|file| key(&frame(name, file, 1)));
        assert_eq!(keys[0] != keys[1], are_two, "{name} in {one} and {other}");
    }
    // Neither the line nor the checkout counts.
    for (one, other) in [
        ("/app/cart.py", "/home/ci/build-12/shop/cart.py"),
        ("a.c", "/usr/src/shop-1.2/a.c"),
    ] {
        assert_eq!(key(&frame("run", one, 1)), key(&frame("run", other, 99)));
    }
}

#[test]
fn two_long_names_that_begin_alike_stay_two() {
    let resolved = read(&folder("fixtures/names/long-names.pb.gz"));
    let long: Vec<_> = resolved
        .functions
        .iter()
        .filter(|f| f.name.starts_with("shop.price["))
        .collect();
    assert_eq!(long.len(), 2);
    for function in long {
        assert_eq!(function.name.chars().count(), 4096);
    }
    // Cut or not, a name is what it is the next time it comes.
    let cut = normalise(&"é".repeat(5000));
    assert_eq!((cut.chars().count(), normalise(&cut)), (4096, cut.clone()));
}

#[test]
fn names_are_normalised_as_their_language_says() {
    for (name, file, expected) in [
        // Rust.
        ("_ZN4shop5price17h0123456789abcdefE", "", "shop::price"),
        ("shop::price::h0123456789abcdef", "", "shop::price"),
        ("shop::hash::happy", "", "shop::hash::happy"),
        ("_RNvCskwGfYPst2Cb_3foo16example_function", "", "foo::example_function"),
        (
            "shop::price::{closure#1}::{closure#0}",
            "",
            "shop::price::{{closure}}::{{closure}}",
        ),
        // C and C++.
        ("memcpy", "", "memcpy"),
        ("memcpy@plt", "", "memcpy"),
        ("memcpy@@GLIBC_2.14", "", "memcpy"),
        ("price+0x1f", "", "price"),
        ("price<0000000000001199>", "", "price"),
        ("price.part.0.isra.0.cold", "", "price"),
        ("price.llvm.7612493816242381104", "", "price"),
        ("price.lto_priv.0", "", "price"),
        (
            "_Z5priceNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
            "",
            "price(std::basic_string<char, std::char_traits<char>, std::allocator<char>>)",
        ),
        ("shop::name[abi:cxx11](int)", "", "shop::name(int)"),
        (
            "shop::f(int)::{lambda(int)#2}::operator()(int) const",
            "",
            "shop::f(int)::{lambda(int)}::operator()(int) const",
        ),
        (
            "shop::f(int)::'lambda0'(int (*)(int))::operator()(int) const",
            "",
            "shop::f(int)::{lambda(int (*)(int))}::operator()(int) const",
        ),
        ("_Znot_a_symbol", "", "_Znot_a_symbol"),
        // Go.
        ("main.Map[go.shape.string,go.shape.[]int].Get", "", "main.Map[...].Get"),
        ("main.(*List[go.shape.int_0]).Push-fm", "", "main.(*List[...]).Push"),
        ("main.handle.func1.2", "", "main.handle.func.func"),
        ("main.handle.gowrap3", "/src/main.go", "main.handle.gowrap"),
        ("main.all-range1", "/src/main.go", "main.all-range"),
        ("main.glob..func7", "", "main.glob..func"),
        ("runtime.memmove.abi0", "", "runtime.memmove"),
        ("gopkg.in/yaml%2ev3.Unmarshal", "", "gopkg.in/yaml.v3.Unmarshal"),
        (
            "github.com/shop/v2/price1.Total2",
            "",
            "github.com/shop/v2/price1.Total2",
        ),
        ("net/http.(*conn).serve", "", "net/http.(*conn).serve"),
        // Java, Kotlin, Scala.
        (
            "io.shop.Api$$Lambda/0x0000000800c03000.run",
            "",
            "io.shop.Api$$Lambda.run",
        ),
        (
            "io.shop.Api$$Lambda$14+0x0000000800c03000.run",
            "",
            "io.shop.Api$$Lambda.run",
        ),
        (
            "Main$$Lambda$88+0x00007f8878007c08/360062456.applyAsLong",
            "",
            "Main$$Lambda.applyAsLong",
        ),
        ("io.shop.Api$$Lambda$14/1582071873.run", "", "io.shop.Api$$Lambda.run"),
        (
            "java.lang.invoke.LambdaForm$MH+0x00007f8878008c00/2143431083.invoke",
            "",
            "java.lang.invoke.LambdaForm$MH.invoke",
        ),
        ("$Proxy26.price", "", "$Proxy.price"),
        (
            "shop.S$$anonfun$main$1$$anonfun$apply$mcVI$sp$1.apply$mcVI$sp",
            "",
            "shop.S$$anonfun$main$$anonfun$apply$mcVI$sp.apply$mcVI$sp",
        ),
        ("shop.S$$anon$1.price", "", "shop.S$$anon.price"),
        ("shop.S$.total$1", "", "shop.S$.total"),
        ("shop.PriceKt.total$lambda-0", "", "shop.PriceKt.total$lambda"),
        ("io.shop.Api.lambda$total$3", "", "io.shop.Api.lambda$total"),
        ("io/shop/Api.lambda$static$0", "", "io/shop/Api.lambda$static"),
        ("io/shop/Api$1.run", "", "io/shop/Api$anonymous.run"),
        ("io/shop/Api$Cart.total", "", "io/shop/Api$Cart.total"),
        ("io/shop/Api.access$000", "", "io/shop/Api.access$"),
        ("jdk/proxy2/$Proxy14.total", "", "jdk/proxy/$Proxy.total"),
        ("com.sun.proxy.$Proxy5.total", "", "com.sun.proxy.$Proxy.total"),
        (
            "io.shop.Cart$$EnhancerBySpringCGLIB$$1a2b3c4d.total",
            "",
            "io.shop.Cart$$EnhancerBySpringCGLIB.total",
        ),
        (
            "io.shop.Cart$$SpringCGLIB$$0.total",
            "",
            "io.shop.Cart$$SpringCGLIB.total",
        ),
        (
            "io.shop.Cart$ByteBuddy$AbC12xYz.total",
            "",
            "io.shop.Cart$ByteBuddy.total",
        ),
        (
            "io.shop.Cart$HibernateProxy$8Kd7xZqB.total",
            "",
            "io.shop.Cart$HibernateProxy.total",
        ),
        (
            "io.shop.Api$total$1.invokeSuspend",
            "",
            "io.shop.Api$total$anonymous.invokeSuspend",
        ),
        ("io.shop.Api$.$anonfun$total$1", "", "io.shop.Api$.$anonfun$total"),
        ("java.util.HashMap.get", "", "java.util.HashMap.get"),
        // JavaScript.
        ("(anonymous:L#135:C#5)", "/app/a.js", "(anonymous)"),
        ("", "/app/a.js", "(anonymous)"),
        ("JS:^parse file:///app/a.mjs:1:2", "", "parse"),
        ("LazyCompile:~ /app/a.js:10:15", "", "(anonymous)"),
        ("+parse", "/app/a.js", "parse"),
        ("Builtin:ArrayMap", "", "Builtin:ArrayMap"),
        // Python.
        ("main (app.py:21)", "", "main"),
        ("<module> (/srv/app.py:1)", "", "<module>"),
        (
            "Cart.total.<locals>.<lambda>",
            "/srv/app.py",
            "Cart.total.<locals>.<lambda>",
        ),
        // Ruby.
        ("block (2 levels) in total", "/srv/a.rb", "block in total"),
        ("block (3 levels) in Shop::Cart#total", "", "block in Shop::Cart#total"),
        ("#<Class:0x000001f2>#call", "/srv/a.rb", "#<Class>#call"),
        // PHP.
        ("Shop\\Cart->total", "", "Shop\\Cart->total"),
        ("{closure:Shop\\Cart::total():12}", "", "{closure:Shop\\Cart::total()}"),
        ("class@anonymous\0/srv/a.php:12$0::total", "", "class@anonymous::total"),
        // .NET.
        (
            "Shop.Price+<>c__DisplayClass1_0.<Total>b__0",
            "",
            "Shop.Price+<>c__DisplayClass.<Total>b",
        ),
        ("Shop.Price+<>c.<Total>b__0_1", "", "Shop.Price+<>c.<Total>b"),
        ("Shop.Price+<Total>d__3.MoveNext", "", "Shop.Price+<Total>d.MoveNext"),
        ("Shop.Price.<Total>g__Round|3_0", "", "Shop.Price.<Total>g__Round"),
        (
            "void [Shop] Shop.Price::Total(int32)[OptimizedTier1]",
            "",
            "void [Shop] Shop.Price::Total(int32)",
        ),
        // Not a word is lost where there is nothing to normalise.
        ("price 10", "", "price 10"),
        ("[unknown]", "", "[unknown]"),
        ("0x55d0c8002340", "", "0x55d0c8002340"),
    ] {
        let once = frame(name, file, 0);
        assert_eq!(once.function, expected, "{name}");
        let twice = frame(&once.function, &once.file, once.line);
        assert_eq!(twice, once, "{name}: normalised twice");
    }
    let split = frame("main (shop/app.py:21)", "", 0);
    assert_eq!((split.file.as_str(), split.line), ("shop/app.py", 21));
}

#[test]
fn a_place_that_is_uncovered_by_normalising_is_split_off_too() {
    let once = frame("price (shop/price.py:12).cold", "", 0);
    assert_eq!(frame(&once.function, &once.file, once.line), once);
    let odd = frame("_ZN (a.py:1 (a.py:1.cold", "", 0);
    assert_eq!(frame(&odd.function, &odd.file, odd.line), odd);
}

proptest::proptest! {
    #[test]
    fn hostile_names_are_bounded_and_normalising_them_ends(name in "\\PC{0,300}", file in "\\PC{0,60}") {
        let frame = frame(&name, &file, 0);
        proptest::prop_assert!(frame.function.chars().count() <= 4096);
        function_id(&frame);
    }

    /// Of the characters that rules look for.
    #[test]
    fn pieces_of_names_in_any_order_are_bounded(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "_ZN", "_R", "_Z", "4shop", "17h0123456789abcdefE", "Ei", "S_", "T_", "I", ".llvm.", ".cold", "$$Lambda$", "/0x1f", "func1", ".",
            "[go.shape.int", "]", "(", ")", "{closure#", "}", "<", ">", " (a.py:1", "block (2 levels) in ", "@anonymous\0", "::h", "|", "é", "0",
        ]), 0..40),
    ) {
        let once = frame(&pieces.concat(), "", 0);
        proptest::prop_assert!(once.function.chars().count() <= 4096);
        proptest::prop_assert_eq!(&frame(&once.function, &once.file, once.line), &once);
    }
}
