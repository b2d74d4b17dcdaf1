//! Compiles `proto/mcp/v1/*.proto` without protoc.
//!
//! Two changes are made to the descriptors before code is generated. Neither changes the wire
//! form; both let the broker forward what it does not look into without copying it:
//! * `string` fields become `bytes` (and so `Bytes`, slices of the read buffer); the validated
//!   types of `message` check that they are UTF-8. Map entries stay strings.
//! * the `task` field of Send and Route becomes `bytes`: a task is forwarded as it came.

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
        let forwards_task = matches!(message.name(), "Send" | "Route");
        for field in &mut message.field {
            let is_task = forwards_task && field.name() == "task";
            if field.r#type() == Type::String || is_task {
                field.set_type(Type::Bytes);
                field.type_name = None;
            }
        }
        debug_assert!(message.nested_type.iter().all(is_map_entry));
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}
