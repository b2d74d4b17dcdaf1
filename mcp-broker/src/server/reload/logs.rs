//! The audit log's file: another one, or the same opened again, as `logrotate` wants it.

use super::{Apply, Part};
use crate::server::audit::Audit;
use crate::server::config::Config;
use crate::server::error::StartError;

pub(in crate::server) struct AuditFile(pub(in crate::server) Audit);

impl Part for AuditFile {
    fn prepare(&self, config: &Config) -> Result<Apply, StartError> {
        let target = config.audit.open()?;
        let audit = self.0.clone();
        Ok(Box::new(move || audit.write_to(target)))
    }
}
