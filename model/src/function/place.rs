//! Names that profilers write together with their location: the function, its file and its line.
//!
//! Guarantee: only a file of a known kind of source is split off, so a name that merely looks like one is left whole.

use super::{languages::by_file, marks::Marks};

/// A name and its location.
pub(super) struct Placed<'n> {
    pub(super) name: &'n str,
    /// File and line; 0 without a line.
    pub(super) place: Option<(&'n str, u32)>,
}

/// True for paths and names of source files in a known language.
pub fn is_source_file(file: &str) -> bool {
    by_file(file).is_some()
}

/// Splits what py-spy, flame and heaptrack (`price (shop/price.py:12)`), V8 (`*price /app/price.js:10:15`), rbspy
/// (`price - price.rb:12`), Pyroscope's agents (`price.py:12 - price`, for Node `./price.js:price:12`) and filprofiler
/// (`price.py:12 (price)`) write.
pub(super) fn split(name: &str) -> Placed<'_> {
    let whole = Placed { name, place: None };
    let Some(&last) = name.as_bytes().last() else {
        return whole;
    };
    // Most names are paths of functions: all but one of these forms contain a blank.
    let has_blank = Marks::of(name).has(b' ');
    let found = match last {
        b')' if has_blank => in_brackets(name),
        b'0'..=b'9' if has_blank => at_the_end(name).or_else(|| between(name)),
        b'0'..=b'9' => between(name),
        _ => None,
    };
    let found = found.or_else(|| has_blank.then(|| in_front(name))?);
    match found {
        Some((name, file, line)) => Placed {
            name: if name.is_empty() { "(anonymous)" } else { name },
            place: Some((file, line)),
        },
        None => whole,
    }
}

/// `price (shop/price.py:12)`, and reversed, `shop/price.py:12 (price)`.
fn in_brackets(name: &str) -> Option<(&str, &str, u32)> {
    let at = name.rfind(" (")?;
    let (head, inside) = (&name[..at], &name[at + 2..name.len() - 1]);
    if let Some((file, line)) = file_and_line(inside) {
        return Some((head.trim_end(), file, line));
    }
    let (file, line) = file_and_line(head).filter(|&(_, line)| line > 0)?;
    Some((inside, file, line))
}

/// `*price /app/price.js:10:15` and `price - price.rb:12`.
fn at_the_end(name: &str) -> Option<(&str, &str, u32)> {
    if let Some((head, place)) = name.rsplit_once(" - ")
        && let Some((file, line)) = file_and_line(place).filter(|&(_, line)| line > 0)
    {
        return Some((head, file, line));
    }
    // A path may contain blanks: take the first one before the beginning of a path.
    let at = [" /", " file://", " node:", " webpack:", " ./"]
        .iter()
        .filter_map(|begin| name.find(begin))
        .min()
        .or_else(|| name.rfind(' '))?;
    let (file, line) = file_and_line(&name[at + 1..]).filter(|&(_, line)| line > 0)?;
    Some((&name[..at], file, line))
}

/// `./price.js:price:12`.
fn between(name: &str) -> Option<(&str, &str, u32)> {
    let (head, line) = name.rsplit_once(':')?;
    let line = line.parse().ok().filter(|&line| line > 0)?;
    let (file, name) = head.rsplit_once(':')?;
    let is_name = !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && by_file(file).is_some()).then_some((name, file, line))
}

/// `price.py:12 - price`.
fn in_front(name: &str) -> Option<(&str, &str, u32)> {
    let (place, name) = name.split_once(" - ")?;
    let (file, line) = file_and_line(place).filter(|&(_, line)| line > 0)?;
    Some((name, file, line))
}

/// `FILE`, `FILE:LINE` and `FILE:LINE:COLUMN` of a known kind of file.
fn file_and_line(text: &str) -> Option<(&str, u32)> {
    let number = |text: &str| {
        text.rsplit_once(':')
            .and_then(|(head, n)| Some((head.len(), n.parse::<u32>().ok()?)))
    };
    let (file, line) = match number(text) {
        None => (text, 0),
        Some((end, last)) => match number(&text[..end]) {
            Some((end, line)) => (&text[..end], line),
            None => (&text[..end], last),
        },
    };
    let is_file = !file.is_empty() && !file.contains(['(', ')', ';']) && by_file(file).is_some();
    is_file.then_some((file, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_split_off_names() {
        for (written, name, file, line) in [
            ("price (shop/price.py:12)", "price", "shop/price.py", 12),
            ("<module> (/srv/my shop/app.py:1)", "<module>", "/srv/my shop/app.py", 1),
            ("price (pay.c)", "price", "pay.c", 0),
            ("/srv/app.py:7 (main)", "main", "/srv/app.py", 7),
            ("*price /app/price.js:10:15", "*price", "/app/price.js", 10),
            (
                "LazyCompile:~ /app/price.js:10:15",
                "LazyCompile:~",
                "/app/price.js",
                10,
            ),
            (
                "JS:^f file:///app/my shop/p.mjs:1:2",
                "JS:^f",
                "file:///app/my shop/p.mjs",
                1,
            ),
            (
                "block (2 levels) in run - /srv/a.rb:4",
                "block (2 levels) in run",
                "/srv/a.rb",
                4,
            ),
            ("shop/price.rb:12 - total", "total", "shop/price.rb", 12),
            (
                "./src/my shop/p.js:Cart.total:22",
                "Cart.total",
                "./src/my shop/p.js",
                22,
            ),
            ("./shop.js:(anonymous):51", "(anonymous)", "./shop.js", 51),
            (
                "_find_spec (<frozen importlib._bootstrap>:1002)",
                "_find_spec",
                "<frozen importlib._bootstrap>",
                1002,
            ),
        ] {
            let split = split(written);
            assert_eq!((split.name, split.place), (name, Some((file, line))), "{written}");
        }
        for whole in [
            "shop::price(int)",
            "operator new (unsigned long)",
            "price 10",
            "f (g)",
            "shop.price[struct { Field int }]",
            "a - b",
            "",
        ] {
            let split = split(whole);
            assert_eq!((split.name, split.place), (whole, None));
        }
    }
}
