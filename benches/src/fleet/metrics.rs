//! What the broker itself says is connected: `GET /metrics`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::holder::Held;

/// An admin listener that takes longer won't answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many the broker has.
pub(super) fn connected(admin: SocketAddr, held: Held) -> Result<u32> {
    let gauge = match held {
        Held::Agents => "mcp_agents{presence=\"online\"}",
        Held::Connections => "mcp_connections",
    };
    let text = scrape(admin).context("the broker's metrics")?;
    let value = value(&text, gauge).with_context(|| format!("the broker has no {gauge}"))?;
    Ok(value as u32)
}

fn scrape(admin: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A line `NAME VALUE`.
fn value(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.filter_map(|value| value.trim().parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "mcp_connections_max 7\nmcp_agents{presence=\"lost\"} 1\n\
                    mcp_agents{presence=\"online\"} 20\nmcp_connections 21\n";
        assert_eq!(value(text, "mcp_connections"), Some(21.0));
        assert_eq!(value(text, "mcp_agents{presence=\"online\"}"), Some(20.0));
        assert_eq!(value(text, "mcp_agents"), None);
    }
}
