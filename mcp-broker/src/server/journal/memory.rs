//! The journal of a broker that keeps nothing.

use std::io;

use crate::broker::{Journal, Record};

/// Forgets every record: the default. Durable tasks are refused with DURABLE_UNAVAILABLE.
#[derive(Debug, Default)]
pub struct MemoryJournal;

impl Journal for MemoryJournal {
    fn append(&mut self, _record: &Record) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn load(&mut self) -> io::Result<Vec<Record>> {
        Ok(Vec::new())
    }
}
