//! Own code: which functions of a program its owners wrote.
//!
//! Guarantee: it is decided by what anyone can check: the source file's folder, the package, crate or namespace in the
//! name, the file that the code was loaded from, and the program's language. Prefixes configured for a service
//! ([`OwnCode`]) replace all that.
//!
//! A name like `parseBasket` alone says nothing: in a JavaScript program it is the application's, in a Rust program it
//! is a C function. So a program is examined as a whole first ([`Program::of`]). If a managed language runs, native
//! code is the runtime's or an extension's.
//!
//! Wrong on purpose: libraries that no list names and whose files are unknown count as own code; so does everything
//! except the C library in a C program whose files are unknown. Configure the service's prefixes then.

use std::{borrow::Borrow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{
    c_family, file, is_address,
    language::{Language, Rules},
    languages::{RULES, rules, tell},
    marks::Marks,
};
use crate::resolve::FunctionInfo;

/// A program is in a managed language if a fiftieth of the functions with a certain language are.
const SHARE_OF_MANAGED: u64 = 50;
/// This many functions determine a program's language; if there are more, an even sample is examined.
const MOST_LOOKED_AT: usize = 4096;

/// Configured own code of each service: prefixes of function names or source files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCode(BTreeMap<String, Vec<String>>);

impl OwnCode {
    /// Parses `SERVICE=PREFIX,PREFIX`; repeat it for more services or prefixes.
    pub fn parse<'t>(settings: impl IntoIterator<Item = &'t str>) -> Result<OwnCode, String> {
        let mut own = OwnCode::default();
        for setting in settings {
            let (service, prefixes) = setting
                .split_once('=')
                .map(|(service, prefixes)| (service.trim(), prefixes.split(',').map(str::trim)))
                .filter(|(service, _)| !service.is_empty())
                .ok_or_else(|| {
                    format!("`{setting}`: expected `SERVICE=PREFIX,PREFIX`, for example `checkout=io.shop,src/`")
                })?;
            let prefixes: Vec<String> = prefixes.filter(|p| !p.is_empty()).map(str::to_owned).collect();
            if prefixes.is_empty() {
                return Err(format!(
                    "`{setting}`: the prefix is missing; expected `SERVICE=PREFIX,PREFIX`"
                ));
            }
            own.0.entry(service.to_owned()).or_default().extend(prefixes);
        }
        Ok(own)
    }

    /// The prefixes of a service; empty if none are configured.
    pub fn of(&self, service: &str) -> &[String] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }

    /// All prefixes, by service.
    pub fn services(&self) -> &BTreeMap<String, Vec<String>> {
        &self.0
    }
}

/// What a program's functions reveal about it.
#[derive(Debug, Clone)]
pub struct Program {
    language: Option<Language>,
    own: Vec<String>,
}

impl Program {
    /// Examines all functions of a response. `own` are the service's configured prefixes ([`OwnCode::of`]).
    pub fn of<F: Borrow<FunctionInfo>>(functions: &[F], own: &[String]) -> Program {
        let mut counts = [0u64; RULES.len()];
        let every = functions.len().div_ceil(MOST_LOOKED_AT).max(1);
        let looked_at = functions.iter().map(F::borrow).step_by(every);
        for function in looked_at.filter(|f| !f.unresolved) {
            let told = tell(&function.name, &function.file, Marks::of(&function.name));
            for (count, rules) in counts.iter_mut().zip(RULES) {
                let is_runtime = rules.is_managed && is_runtime(rules, &function.name);
                *count += u64::from(is_runtime || told == Some(rules.language));
            }
        }
        let most = |is_managed: bool| {
            let of_kind = counts
                .iter()
                .zip(RULES)
                .filter(|(_, rules)| rules.is_managed == is_managed);
            let (count, rules) = of_kind.max_by_key(|(count, _)| **count)?;
            (*count > 0).then_some((*count, rules.language))
        };
        let language = match (most(true), most(false)) {
            (Some((managed, _)), Some((native, language))) if managed * SHARE_OF_MANAGED < native => Some(language),
            (Some((_, language)), _) | (None, Some((_, language))) => Some(language),
            (None, None) => None,
        };
        Program {
            language,
            own: own.to_vec(),
        }
    }

    /// Its language; `None` if no function reveals it.
    pub fn language(&self) -> Option<Language> {
        self.language
    }

    /// True for library code: the language's own libraries, well-known ones, packages, the runtime, the C library, and
    /// code without a symbol. A verdict names such a function only when nothing else explains it.
    pub fn is_library(&self, function: &FunctionInfo) -> bool {
        let FunctionInfo { name, file, module, .. } = function;
        if function.unresolved || is_address(name) {
            return true;
        }
        if !self.own.is_empty() {
            return !self
                .own
                .iter()
                .any(|prefix| begins(name, prefix) || is_in(file, prefix));
        }
        let told = tell(name, file, Marks::of(name));
        if let Some(language) = told
            && is_in_library_folder(rules(language), file)
        {
            return true;
        }
        // Code of a shared object or of the kernel; functions of a Go or Rust program are recognised by name.
        if module.ends_with(".so") || module.contains(".so.") || module.starts_with('[') {
            return true;
        }
        let Some(language) = self.language else {
            return match told {
                Some(told) => (rules(told).is_library_name)(name),
                None => is_unknown_library(name),
            };
        };
        let of_program = rules(language);
        match told {
            Some(told) if told == language => (of_program.is_library_name)(name),
            // Java and Kotlin are one; TypeScript's files are JavaScript's. Another language: a script of the program,
            // if its file says so.
            Some(told) if rules(told).is_managed => file.is_empty() || (rules(told).is_library_name)(name),
            Some(told) => {
                // A tuple in a Rust name looks like C++ parameters; a file is reliable.
                let is_bound = language == Language::Rust && told != language && !file.is_empty();
                of_program.is_managed
                    || is_bound
                    || is_go(told) != is_go(language)
                    || (rules(told).is_library_name)(name)
            }
            None if is_runtime(of_program, name) => true,
            None => match language {
                Language::JavaScript | Language::Python | Language::Ruby | Language::Php => {
                    is_native_beside(name, language) || (of_program.is_library_name)(name)
                }
                // A name without a package belongs to none of these languages.
                Language::Jvm | Language::DotNet | Language::Go | Language::Rust => (of_program.is_library_name)(name),
                Language::C | Language::Cpp => is_unknown_library(name),
            },
        }
    }
}

fn is_go(language: Language) -> bool {
    language == Language::Go
}

fn is_runtime(rules: &Rules, name: &str) -> bool {
    rules.runtime.iter().any(|begin| name.starts_with(begin))
}

/// A C++ or Rust path in a program in a script language; Ruby and PHP have such names themselves.
fn is_native_beside(name: &str, language: Language) -> bool {
    let has_paths = matches!(language, Language::Ruby | Language::Php);
    !has_paths && name.contains("::") || name.starts_with("__") && !name.ends_with("__")
}

/// By the C and C++ lists alone.
fn is_unknown_library(name: &str) -> bool {
    match name.contains("::") {
        true => (c_family::CPP.is_library_name)(name),
        false => c_family::is_c_library(name.split('(').next().unwrap_or(name)),
    }
}

fn is_in_library_folder(rules: &Rules, file: &str) -> bool {
    let relative = rules
        .library_folders
        .iter()
        .any(|folder| folder.strip_prefix('/').is_some_and(|folder| file.starts_with(folder)));
    relative || rules.library_folders.iter().any(|folder| file.contains(folder))
}

/// Whether a name begins with a prefix; packages may be written with dots or slashes.
fn begins(name: &str, prefix: &str) -> bool {
    let name = name
        .trim_start_matches(['<', '&', '*', '(', ' '])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let same = |(a, b): (u8, u8)| a == b || matches!((a, b), (b'/', b'.') | (b'.', b'/'));
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
}

/// Whether a file is in a folder, from the root, the package or any folder.
fn is_in(path: &str, prefix: &str) -> bool {
    !path.is_empty()
        && (path.starts_with(prefix)
            || file::stable(path).starts_with(prefix)
            || path.contains(&format!("/{}", prefix.trim_start_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Frame;

    fn function(text: &str) -> FunctionInfo {
        let (name, rest) = text.split_once(" @").unwrap_or((text, ""));
        let (file, module) = rest.split_once(" of ").unwrap_or((rest, ""));
        let Frame { function, file, .. } = super::super::frame(name, file, 0);
        FunctionInfo {
            id: 0,
            name: function,
            module: module.to_owned(),
            file,
            unresolved: false,
        }
    }

    /// Asserts a program's language, and that the first list is its own code.
    fn judged(language: Option<Language>, own: &[&str], libraries: &[&str]) {
        let all = |names: &[&str]| names.iter().map(|name| function(name)).collect::<Vec<_>>();
        let (own, libraries) = (all(own), all(libraries));
        let program = Program::of(&[own.clone(), libraries.clone()].concat(), &[]);
        assert_eq!(program.language(), language, "{own:?}");
        let taken = |of: &[FunctionInfo], library: bool| -> Vec<String> {
            let wrong = of.iter().filter(|f| program.is_library(f) != library);
            wrong.map(|f| f.name.clone()).collect()
        };
        assert_eq!(taken(&own, false), [""; 0], "taken for libraries");
        assert_eq!(taken(&libraries, true), [""; 0], "taken for own code");
    }

    #[test]
    fn own_code_is_told_from_libraries_in_every_language() {
        judged(
            Some(Language::Rust),
            &[
                "shop::price_basket",
                "<shop::Basket as core::fmt::Debug>::fmt",
                "emberline_demo::checkout::price_basket",
                "shop::pay @/home/a/shop/src/pay.rs",
            ],
            &[
                "core::num::wrapping_mul",
                "<alloc::vec::Vec<T> as core::ops::Deref>::deref",
                "tokio::runtime::park",
                "memcpy",
                "0x1f",
                "[unknown]",
                "httparse::parse @/home/a/.cargo/registry/src/index-1949/httparse-1.10.1/src/lib.rs",
                "pay::f @/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/hint.rs",
                "ZSTD_compress @zstd_compress.c of shop",
            ],
        );
        judged(
            Some(Language::Go),
            &[
                "main.handle",
                "main.main.func1",
                "github.com/shop/price.Total",
                "github.com/shop/price.(*Cart).Total @/src/price/cart.go",
                "shop/price.Total",
            ],
            &[
                "runtime.main",
                "runtime.memmove",
                "net/http.(*conn).serve",
                "encoding/json.Unmarshal",
                "golang.org/x/net/http2.(*Framer).ReadFrame",
                "github.com/gin-gonic/gin.(*Context).Next",
                "github.com/other/lib.Do @/root/go/pkg/mod/github.com/other/lib@v1.2.3/do.go",
                "github.com/other/lib.Do2 @github.com/other/lib@v1.2.3/do.go",
                "indexbytebody",
                "type:.eq.main.Cart",
                "_cgo_wait",
            ],
        );
        judged(
            Some(Language::Jvm),
            &[
                "io/shop/Api.handle",
                "io/shop/Price.total",
                "io.shop.Api$$Lambda$14/0x1f2.run",
                "io/shop/Api.lambda$total$0",
            ],
            &[
                "java/lang/Thread.run",
                "java.util.HashMap.get",
                "org/springframework/web/X.doIt",
                "io/netty/channel/X.read",
                "com.fasterxml.jackson.X.parse",
                "jdk/internal/reflect/GeneratedMethodAccessor12.invoke",
                "G1ParTask::work",
                "JavaCalls::call_helper",
                "JVM_MonitorWait",
                "start_thread",
                "memcpy @ of libc.so.6",
            ],
        );
        judged(
            Some(Language::JavaScript),
            &[
                "handle",
                "parseBasket",
                "parse @/app/src/a.js",
                "Cart.total @file:///srv/b.mjs",
                "(anonymous) @/app/a.ts",
            ],
            &[
                "node",
                "(program)",
                "(garbage collector)",
                "v8::internal::JsonParser::Parse",
                "node::Start",
                "processTicksAndRejections @node:internal/process/task_queues",
                "next @/app/node_modules/express/lib/router.js",
                "Builtin:ArrayMap",
                "__libc_start_main",
            ],
        );
        judged(
            Some(Language::Python),
            &[
                "handle",
                "validate_basket",
                "__call__",
                "price @shop/price.py",
                "run @/srv/app.py",
            ],
            &[
                "<module>",
                "pydantic_core::validators::model::validate",
                "_PyEval_EvalFrameDefault",
                "loads @/usr/lib/python3.11/json/__init__.py",
                "dispatch @/srv/venv/lib/python3.11/site-packages/flask/app.py",
                "_find_and_load @<frozen importlib._bootstrap>",
                "parse @ of _speedups.cpython-311-x86_64-linux-gnu.so",
            ],
        );
        judged(
            Some(Language::Ruby),
            &["total @app/models/cart.rb", "block in Cart#total", "Shop::Cart#total"],
            &[
                "call @/var/lib/gems/3.1.0/gems/rack-3.0.8/lib/rack.rb",
                "Array#each",
                "rb_vm_exec",
                "<main>",
                "tap @<internal:kernel>",
            ],
        );
        judged(
            Some(Language::Php),
            &[
                "Shop\\Cart::total",
                "total @/srv/src/cart.php",
                "{closure} @/srv/src/cart.php",
            ],
            &[
                "Symfony\\Component\\HttpKernel\\HttpKernel::handle",
                "run @/srv/vendor/monolog/a.php",
                "zend_execute",
            ],
        );
        judged(
            Some(Language::DotNet),
            &["Shop.Price.Total", "Shop.Api+<Handle>d__3.MoveNext"],
            &[
                "System.Text.Json.JsonSerializer.Deserialize",
                "Microsoft.AspNetCore.Hosting.X.Run",
                "coreclr_execute_assembly",
            ],
        );
        judged(
            Some(Language::Cpp),
            &[
                "shop::price(int)",
                "main",
                "price(int)",
                "shop::Cart::total() const",
                "int shop::pick<int>(int)",
            ],
            &[
                "std::vector<int, std::allocator<int>>::push_back(int&&)",
                "absl::Mutex::Lock()",
                "operator new(unsigned long)",
                "malloc",
                "__libc_start_main",
                "do_syscall_64 @ of [kernel.kallsyms]",
                "shop_helper @ of libshop.so.1",
            ],
        );
        // Nothing shows the language: everything outside the C library.
        judged(
            None,
            &["main", "handle", "price"],
            &["malloc", "__libc_start_main", "[unknown]", "read"],
        );
    }

    #[test]
    fn what_is_set_for_a_service_takes_the_place_of_the_rules() {
        let own = OwnCode::parse(["shop=io.shop.,src/", "pay=pay::", "shop=org.springframework."]).unwrap();
        assert_eq!(own.of("shop"), ["io.shop.", "src/", "org.springframework."]);
        assert_eq!(own.of("other"), [""; 0]);
        let functions: Vec<FunctionInfo> = [
            "io/shop/Price.total",
            "org/springframework/web/X.doIt",
            "parse @/srv/shop/src/parse.js",
            "io/other/Price.total",
            "next @/srv/lib/next.js",
        ]
        .map(function)
        .to_vec();
        let program = Program::of(&functions, own.of("shop"));
        let are: Vec<bool> = functions.iter().map(|f| program.is_library(f)).collect();
        assert_eq!(are, [false, false, false, true, true]);
        for wrong in ["shop", "=a", "shop=", "shop= , "] {
            assert!(
                OwnCode::parse([wrong])
                    .unwrap_err()
                    .contains("expected `SERVICE=PREFIX,PREFIX`"),
                "{wrong}"
            );
        }
    }
}
