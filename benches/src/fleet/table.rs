//! What is printed.

use comfy_table::Table;

use super::cost::Cost;
use crate::median::median;
use crate::text;

/// A row for each fleet: medians over its runs.
pub(super) fn of(costs: &[Cost]) -> Table {
    let header = [
        "held at once",
        "opened/s",
        "broker µs each",
        "their µs each",
        "broker kB each",
        "broker idle",
        "their kB each",
        "they idle",
    ];
    let mut table = text::table(header.map(str::to_owned).to_vec());
    for (index, first) in costs.iter().enumerate() {
        let is_same = |other: &&Cost| other.held == first.held && other.count == first.count;
        if costs[..index].iter().any(|it| is_same(&it)) {
            continue;
        }
        let figure = |figure: fn(&Cost) -> f64| {
            median(costs.iter().filter(is_same).map(figure).collect()).unwrap_or_default()
        };
        table.add_row(vec![
            format!("{} {}", text::number(Some(f64::from(first.count))), first.held),
            text::number(Some(figure(|it| it.per_s))),
            text::number(Some(figure(|it| it.broker_cpu_us_each))),
            text::number(Some(figure(|it| it.holders_cpu_us_each))),
            format!("{:.1}", figure(|it| it.broker_bytes_each) / 1000.0),
            percent(figure(|it| it.broker_idle_cores)),
            format!("{:.1}", figure(|it| it.holders_bytes_each) / 1000.0),
            percent(figure(|it| it.holders_idle_cores)),
        ]);
    }
    table
}

fn percent(cores: f64) -> String {
    format!("{:.1} % of a core", cores * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::holder::Held;
    use super::*;

    #[test]
    fn a_fleet_is_a_row_of_medians() {
        let run = |count, per_s| Cost {
            held: Held::Agents,
            count,
            repeat: 1,
            processes: 1,
            per_s,
            broker_cpu_us_each: 300.0,
            holders_cpu_us_each: 400.0,
            broker_settled_bytes_each: 31_000.0,
            broker_bytes_each: 30_000.0,
            idle_secs: 20.0,
            broker_idle_cores: 0.0123,
            holders_bytes_each: 50_000.0,
            holders_idle_cores: 0.1,
        };
        let runs = [run(2000, 1000.0), run(10, 5.0), run(2000, 1600.0), run(2000, 1500.0)];
        let text = of(&runs).to_string();
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(rows.len(), 2, "{text}");
        for part in ["2,000 agents", " 1,500 ", " 30.0 ", "1.2 % of a core"] {
            assert!(rows[0].contains(part), "{part} is not in {text}");
        }
    }
}
