//! Tables and quantities for people.

use comfy_table::{CellAlignment, Table, presets};

/// Draws a header and rows: columns by white space alone. Those named in `numbers` are set right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    numbers: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(&name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A duration in one unit.
pub(super) fn duration(ms: u64) -> String {
    const MINUTE_MS: u64 = 60_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;
    match ms {
        0..MINUTE_MS => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        MINUTE_MS..HOUR_MS => format!("{} min", ms / MINUTE_MS),
        _ if ms < 48 * HOUR_MS => format!("{} h", ms / HOUR_MS),
        _ => format!("{} d", ms / (24 * HOUR_MS)),
    }
}

/// `1 entry`, `2 entries`.
pub(super) fn count(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_unit_that_fits_it() {
        let shown = [0, 59_999, 60_000, 3_600_000, 172_799_999, 172_800_000].map(duration);
        assert_eq!(shown, ["0.0 s", "59.9 s", "1 min", "1 h", "47 h", "2 d"]);
    }
}
