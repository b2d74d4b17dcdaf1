//! A journal, of which a crash leaves what was synced, and maybe some of what was written after that.

use std::collections::BTreeMap;

use mcp_broker::broker::Record;
use mcp_proto::TaskId;

#[derive(Debug, Default)]
pub(super) struct Journal {
    records: Vec<(u64, Record)>,
    /// The number of the last record that is on disk. They go on over restarts.
    pub(super) synced: u64,
    /// Records that earlier processes wrote.
    before: u64,
}

impl Journal {
    /// Returns the record's number.
    pub(super) fn append(&mut self, seq: u64, record: Record) -> u64 {
        self.records.push((self.before + seq, record));
        self.before + seq
    }

    /// All is on disk. Returns what the core calls the last record.
    pub(super) fn sync(&mut self) -> u64 {
        self.synced = self.last();
        self.synced - self.before
    }

    /// Returns what is left, when so many of the records that were not synced are.
    pub(super) fn crash(&mut self, unsynced: usize) -> Vec<Record> {
        let end = self.last();
        let synced = self.records.iter().filter(|(number, _)| *number <= self.synced).count();
        self.records.truncate(synced + unsynced);
        (self.synced, self.before) = (end, end);
        self.load()
    }

    fn last(&self) -> u64 {
        self.records.last().map_or(self.before, |(number, _)| (*number).max(self.before))
    }

    /// The newest record of each task and of each dead letter, in the order in which they came.
    fn load(&self) -> Vec<Record> {
        let mut newest = BTreeMap::<(bool, &TaskId), &(u64, Record)>::new();
        for record in &self.records {
            let key = key(&record.1);
            match record.1 {
                Record::Forgotten(_) | Record::DeadForgotten(_) => newest.remove(&key),
                _ => newest.insert(key, record),
            };
        }
        let mut records: Vec<_> = newest.into_values().cloned().collect();
        records.sort_by_key(|(number, _)| *number);
        records.into_iter().map(|(_, record)| record).collect()
    }
}

/// Whether it is of a dead letter, and of which task.
fn key(record: &Record) -> (bool, &TaskId) {
    match record {
        Record::Accepted(name, _)
        | Record::Ended(name, _)
        | Record::Settled(name, _)
        | Record::Forgotten(name) => (false, &name.task_id),
        Record::Dead(name, _) | Record::DeadForgotten(name) => (true, &name.task_id),
    }
}
