//! mcp-broker
