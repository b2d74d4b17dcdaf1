//! The journal on the simulated disk.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mcp_broker::broker::{Record, TaskName};
use mcp_broker::journal::Log;

use crate::disk::Disk;

/// All records that there ever were. What lies on the disk is only where.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<Vec<Record>>>);

/// A journal that is open.
pub(crate) struct Journal {
    log: Log<Disk>,
    records: Records,
}

fn key(record: &Record) -> (Bytes, bool) {
    let (kind, TaskName { identity, task_id }, ends) = match record {
        Record::Accepted(name, _) | Record::Ended(name, _) | Record::Settled(name, _) => {
            ('t', name, false)
        }
        Record::Forgotten(name) => ('t', name, true),
        Record::Dead(name, _) => ('d', name, false),
        Record::DeadForgotten(name) => ('d', name, true),
    };
    (Bytes::from(format!("{kind}{identity:?}/{task_id}")), ends)
}

impl Journal {
    pub(crate) fn open(disk: Disk, records: Records) -> (Self, Vec<Record>) {
        let (log, entries, _) = Log::open(disk).unwrap_or_else(|error| panic!("{error}"));
        let all = records.0.lock().unwrap();
        let number = |value: &[u8]| u64::from_le_bytes(value.try_into().unwrap()) as usize;
        let kept = entries.iter().map(|entry| all[number(&entry.value)].clone()).collect();
        drop(all);
        (Self { log, records }, kept)
    }

    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        let (key, ends) = key(record);
        if ends {
            return self.log.delete(&key);
        }
        let mut all = self.records.0.lock().unwrap();
        all.push(record.clone());
        self.log.put(&key, &(all.len() as u64 - 1).to_le_bytes())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }
}
