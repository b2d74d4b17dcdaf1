#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_fuzz_targets::core_ops(data));
