//! Compiles `proto/mcp/v1/*.proto` without protoc.
//!
//! Before code is generated, `string` fields become `bytes` (and so `Bytes`, slices of the read
//! buffer), which doesn't change the wire form; the validated types of `message` check that they are
//! UTF-8. Map entries stay strings.

use std::path::Path;

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo:rerun-if-changed={}", root.join("mcp/v1").display());

    let mut descriptors = protox::compile([root.join("mcp/v1/frame.proto")], [&root])?;
    descriptors.file.iter_mut().for_each(strings_to_bytes);

    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}

fn strings_to_bytes(file: &mut FileDescriptorProto) {
    for message in &mut file.message_type {
        for field in &mut message.field {
            if field.r#type() == Type::String {
                field.set_type(Type::Bytes);
            }
        }
        debug_assert!(message.nested_type.iter().all(is_map_entry));
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}
