//! Tables for people: columns by white space alone, so that other programs can cut them, too.

use comfy_table::{Table, presets};

/// Draws a header and rows.
pub(crate) fn draw<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The cells of each line of a table.
#[cfg(test)]
pub(crate) fn cells(table: &str) -> Vec<Vec<&str>> {
    let of_line =
        |line| str::split(line, "  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    table.lines().map(of_line).collect()
}
