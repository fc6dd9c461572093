//! Java, Kotlin, Scala. Names contain package, class and method: `io/shop/Price.total`, or with dots.
//!
//! Classes created at run time have a counter, an address or both (`$$Lambda$14/0x…`, `LambdaForm$MH.0x…`,
//! `GeneratedMethodAccessor12`, `$Proxy5`, and those of CGLIB, Byte Buddy and Javassist). Lambdas and anonymous classes
//! are numbered within their outermost class (`lambda$total$3`, `Price$1`), so that an edit anywhere in it renumbers
//! them.

use super::{
    language::{Language, Rules},
    marks::{Marks, change, digits, hex_digits, is_number, without_each, without_number},
};

pub(super) const RULES: Rules = Rules {
    language: Language::Jvm,
    is_managed: true,
    endings: &["java", "kt", "kts", "scala", "groovy", "clj"],
    no_files: &[],
    is_certain,
    normalise,
    is_scoped_by_file: |_| false,
    is_library_name,
    library_folders: &[],
    runtime: &[
        "JavaThread::",
        "JavaCalls::",
        "JavaMain",
        "G1Par",
        "G1Concurrent",
        "G1Young",
        "G1Service",
        "G1Collect",
        "G1RemSet",
        "G1CMTask",
        "CompileBroker::",
        "InterpreterRuntime::",
        "JVM_",
        "Unsafe_",
        "PhaseIdealLoop::",
        "thread_native_entry",
        "GangWorker",
        "WorkerThread::",
        "VMThread::",
        "ParallelGC",
        "ZDriver",
        "Shenandoah",
    ],
};

/// Packages of the platform and of well-known libraries, with dots.
const PACKAGES: [&str; 62] = [
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "com.sun.",
    "jakarta.",
    "kotlin.",
    "kotlinx.",
    "scala.",
    "groovy.",
    "clojure.",
    "akka.",
    "play.",
    "reactor.",
    "rx.",
    "okhttp3.",
    "okio.",
    "retrofit2.",
    "feign.",
    "zipkin2.",
    "brave.",
    "cats.",
    "zio.",
    "android.",
    "androidx.",
    "ch.qos.logback.",
    "com.codahale.",
    "com.datastax.",
    "com.fasterxml.",
    "com.github.benmanes.",
    "com.google.common.",
    "com.google.gson.",
    "com.google.protobuf.",
    "com.lmax.",
    "com.mysql.",
    "com.zaxxer.",
    "io.dropwizard.",
    "io.grpc.",
    "io.helidon.",
    "io.jaegertracing.",
    "io.ktor.",
    "io.lettuce.",
    "io.micrometer.",
    "io.micronaut.",
    "io.netty.",
    "io.opentelemetry.",
    "io.prometheus.",
    "io.pyroscope.",
    "io.quarkus.",
    "io.reactivex.",
    "io.undertow.",
    "io.vertx.",
    "net.bytebuddy.",
    "net.sf.cglib.",
    "one.profiler.",
    "org.apache.",
    "org.eclipse.",
    "org.glassfish.",
    "org.hibernate.",
    "org.jboss.",
    "org.postgresql.",
    "org.springframework.",
];
/// More of them.
const MORE_PACKAGES: [&str; 10] = [
    "org.slf4j.",
    "org.mockito.",
    "org.junit.",
    "org.objectweb.",
    "org.codehaus.",
    "org.yaml.",
    "org.mariadb.",
    "com.mongodb.",
    "redis.clients.",
    "org.aspectj.",
];

fn is_certain(name: &str, marks: Marks) -> bool {
    if !marks.has(b'.') || marks.any(b"\\ :") {
        return false;
    }
    if marks.has(b'$')
        && ["$$Lambda", "LambdaForm$", "lambda$", "$Proxy", "$$anon", "$anonfun$"]
            .iter()
            .any(|mark| name.contains(mark))
    {
        return true;
    }
    // The signature is not part of the name.
    let name = &name[..name.find('(').unwrap_or(name.len())];
    match name.rsplit_once('/') {
        // `io/shop/Price.total`: a class and a method follow the package.
        Some((package, member)) => {
            let package_is_java = !package.contains(['.', '[']) && !package.contains("%2e");
            let class = member.split(['.', '+']).next().unwrap_or_default();
            package_is_java && (is_class(class) || member.starts_with("0x"))
        }
        None => {
            let mut elements = name.rsplit('.');
            let (Some(method), Some(class)) = (elements.next(), elements.next()) else {
                return false;
            };
            let mut packages = 0;
            let has_packages = elements.all(|element| {
                packages += 1;
                element.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') || is_class(element)
            });
            has_packages
                && packages > 0
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && is_class(class)
                && method.starts_with(|c: char| c.is_lowercase() || matches!(c, '<' | '_' | '$'))
        }
    }
}

fn is_class(element: &str) -> bool {
    element.starts_with(|c: char| c.is_uppercase() || c == '$')
}

fn normalise(name: &str, marks: Marks) -> Option<String> {
    let has_digit = (b'0'..=b'9').any(|digit| marks.has(digit));
    if !has_digit && !marks.has(b'$') {
        return None;
    }
    // The address of a hidden class, in whatever form the profiler appends it.
    let mut text = name.to_owned();
    for begin in ["/0x", "+0x", ".0x"] {
        let changed = without_each(&text, begin, hex_digits, "");
        change(&mut text, changed);
    }
    // Their identity hash, as in flight recordings and JDK 8: `Api$$Lambda$14/1582071873`.
    let hash = |text: &str| match digits(text) {
        number if text[number..].is_empty() || text[number..].starts_with('.') => number,
        _ => 0,
    };
    let changed = without_each(&text, "/", hash, "");
    change(&mut text, changed);
    for generated in [
        "GeneratedMethodAccessor",
        "GeneratedConstructorAccessor",
        "GeneratedSerializationConstructorAccessor",
        "jdk/proxy",
        "jdk.proxy",
        "$Proxy",
        "access$",
    ] {
        let changed = without_each(&text, generated, digits, generated);
        change(&mut text, changed);
    }
    for (made_by, length) in [
        ("CGLIB$$", hex_digits as fn(&str) -> usize),
        ("$ByteBuddy$", letters_and_digits),
        ("$MockitoMock$", digits),
        ("$HibernateProxy$", letters_and_digits),
        ("_$$_jvst", jvst),
        ("_$$_javassist_", digits),
    ] {
        let changed = without_each(&text, made_by, length, made_by.trim_end_matches('$'));
        change(&mut text, changed);
    }
    if text.contains('$') {
        text = without_counters(&text);
    }
    (text != name).then_some(text)
}

fn letters_and_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_alphanumeric).count()
}

/// `4a2_0`, after Javassist's mark.
fn jvst(text: &str) -> usize {
    text.bytes()
        .take_while(|byte| byte.is_ascii_hexdigit() || *byte == b'_')
        .count()
}

/// The parts between dollar signs without counters: `Price$1`, `Context$$Lambda$14`,
/// `Context$$Lambda$lambda$wrap$2$1840027311`; in methods `lambda$total$3`, `total$lambda-0`, `total$1`.
fn without_counters(name: &str) -> String {
    let end = name.find('(').unwrap_or(name.len());
    let method = name[..end].rfind('.').unwrap_or(0);
    let mut out = String::with_capacity(name.len());
    let mut is_lambda = false;
    for (at, part) in name[..method].split('$').enumerate() {
        let counted = digits(part);
        match part {
            _ if at == 0 => out.push_str(part),
            _ if is_number(part) && is_lambda => {}
            _ if is_number(part) => out.push_str("$anonymous"),
            // A class within a method, `Price$1Discount`: the number distinguishes two with the same name.
            _ => {
                out.push('$');
                out.push_str(&part[counted..]);
            }
        }
        is_lambda |= matches!(part, "lambda" | "Lambda" | "anonfun" | "anon");
    }
    for (at, part) in name[method..end].split('$').enumerate() {
        if at > 0 && is_number(part) {
            continue;
        }
        if at > 0 {
            out.push('$');
        }
        let word = without_number(part);
        out.push_str(if word == "lambda-" { "lambda" } else { part });
    }
    out.push_str(&name[end..]);
    out
}

fn is_library_name(name: &str) -> bool {
    let dotted = |package: &str| {
        let mut rest = name;
        package.trim_end_matches('.').split('.').all(|element| {
            let found = rest.strip_prefix(element);
            rest = match found {
                Some(after) => after.strip_prefix(['.', '/']).unwrap_or(""),
                None => return false,
            };
            // An element ends where the package's does.
            found.is_some_and(|after| after.starts_with(['.', '/']))
        })
    };
    // Neither package nor class: native code of the virtual machine.
    !name.contains('.') || PACKAGES.iter().chain(&MORE_PACKAGES).any(|package| dotted(package))
}
