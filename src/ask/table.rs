//! Tables for terminals: numbers right-aligned, the last column as long as it is.

pub(crate) use emberline_analysis::compare::format_amount as amount;

/// An amount with its sign.
pub(crate) fn signed(value: f64, unit: &str) -> String {
    let sign = if value < 0.0 { "−" } else { "+" };
    format!("{sign}{}", amount(value.abs(), unit))
}

/// Aligns rows under a heading.
pub(crate) fn draw(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let last = cells.len() - 1;
        let aligned = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| match at == last {
                true => cell.clone(),
                false => format!("{cell:>width$}"),
            });
        aligned.collect::<Vec<_>>().join("  ") + "\n"
    };
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let mut text = line(&heading);
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["1".to_owned(), "main".to_owned()],
            vec!["1000".to_owned(), "é".to_owned()],
        ];
        assert_eq!(
            draw(&["self", "function"], &rows),
            "self  function\n   1  main\n1000  é\n"
        );
        assert_eq!(amount(2.5e6, "nanoseconds"), "2.50 ms");
        assert_eq!(amount(2.5e6, "bytes"), "2.50 MB");
        assert_eq!(signed(-3.0, "count"), "−3");
    }
}
