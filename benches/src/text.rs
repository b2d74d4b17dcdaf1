//! Tables, and figures as they are printed.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table; all columns but the first are numbers.
pub(crate) fn table(header: Vec<String>) -> Table {
    let columns = header.len();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for index in 1..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Whole, in groups of three digits.
pub(crate) fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return dash() };
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Instead of a figure that there is not.
pub(crate) fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(Some(7.4)), "7");
        assert_eq!(number(Some(123.0)), "123");
        assert_eq!(number(Some(1_234_567.0)), "1,234,567");
        assert_eq!(number(None), "–");
    }
}
