//! A short comparison of this broker with nobody, by the program itself.

use std::process::Command;

#[test]
fn a_comparison_writes_what_it_measured() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mcp-bench"))
        .args(["compare", "--peers", "mcp", "--secs", "0.2", "--repeat", "1"])
        .args(["--in-flight", "1", "--payload", "128", "--out"])
        .arg(dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("1 × 128"), "{stdout}");

    let json = std::fs::read_to_string(dir.path().join("compare.json")).unwrap();
    let records: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let [record] = &records[..] else { panic!("{records:?}") };
    for (key, expected) in [
        ("peer", serde_json::json!("mcp")),
        ("mode", "closed".into()),
        ("in_flight", 1.into()),
        ("payload_bytes", 128.into()),
        ("slots", 1.into()),
        ("mtu", mcp_proto::transport::MAX_UDP_PAYLOAD_BYTES.into()),
        ("tls", true.into()),
        ("repeat", 1.into()),
        ("errors", 0.into()),
    ] {
        assert_eq!(record[key], expected, "{key}");
    }
    for key in ["tasks_per_s", "p50_us", "p99_us"] {
        assert!(record[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {record}");
    }
    for name in ["throughput.svg", "latency-p50.svg", "latency-p99.svg", "latency-cdf.svg"] {
        let svg = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.contains(">mcp<"), "{name}");
    }
}
